"""Proof that the kernels of a spec are the right ones: what is stock's, one artifact a key, the same in every build."""
