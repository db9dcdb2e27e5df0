"""A package that carries code of FlashAttention-4's lineage, made up for tests: what it has is what such packages do.

Its kernels compute next to nothing. How it keeps, looks up and calls them is what counts: under names of its own,
several caches to a function, one beside the package `wild_attn.cute`, and arguments by keyword.
"""
