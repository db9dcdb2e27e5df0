"""Carrying a cache, or a part of it, from one place to another."""
