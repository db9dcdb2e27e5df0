"""Specs from models: what a published configuration says of attention, and the calls that it comes to."""
