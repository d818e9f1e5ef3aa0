"""Gates on kernels, trained: the sum that is exact, the training, the ladder of densities, scales."""
