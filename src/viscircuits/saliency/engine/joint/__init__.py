"""Kernels scored together: moments of layers, elimination of kernels, and the order in which kernels come into play."""
