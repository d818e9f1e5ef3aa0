"""viscircuits: find, measure and look at the small circuits inside vision models."""

__version__ = "0.1.0"
