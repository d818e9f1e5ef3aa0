"""Running somebody's model without a trace: on it, on torch, on the process, on its other threads."""
