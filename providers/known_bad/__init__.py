"""Toolchains whose kernels are known to hang or to be wrong: the list of them, and what of it a kernel is on."""
