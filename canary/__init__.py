"""Running the kernels of a cache on the GPU that is here, and saying how they did."""
