"""Shipped specs and device profiles. Data only."""
