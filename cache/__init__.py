"""The cache on disk and at run time. Standard library only until a kernel is loaded."""
