"""The package that a spec names by `module`."""
