"""Recordings of jobs, and specs that are made of them."""
