"""Physically smaller copies of a network: what they compute, what they cost, how they are stored."""
