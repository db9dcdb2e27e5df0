"""What a job imports: a provider's compile caches, answered from a cache on disk. Standard library only until a hit."""
