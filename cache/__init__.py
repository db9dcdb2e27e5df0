"""The disk: how a cache directory is read, verified and published. Standard library only."""
