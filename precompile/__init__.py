"""Build time: spec to plan to build."""
