"""Feature visualisation: objective x parameterisation x transforms x ascent, on a model or on a circuit."""
