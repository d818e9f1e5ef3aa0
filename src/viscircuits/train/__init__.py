"""Training of small networks: the loop, the sparsity penalties, the built-in network."""
