"""Drawn stimuli, how a model and its circuits respond to them, and the circuits behind single points of that."""
