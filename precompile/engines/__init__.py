"""Builds on machines of an engine that is there already: Dask, or whatever gives a `concurrent.futures.Executor`."""
