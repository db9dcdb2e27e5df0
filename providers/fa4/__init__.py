"""What is known of FlashAttention-4, where kernels are built and where they run."""
