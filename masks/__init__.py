"""Masks for FlashAttention-4 as it is on PyPI, by name: what a spec's `mask_mod` and a job's call can share."""
