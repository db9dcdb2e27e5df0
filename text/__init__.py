"""What people write, read with its place in the file; and what they read, written. Knows nothing of kernels."""
