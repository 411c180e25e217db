"""Backends with a fault each, for the check to find: the reference's operations, spoilt."""
