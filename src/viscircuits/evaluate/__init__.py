"""How well a circuit keeps its target: one measurement, and sweeps of them."""
