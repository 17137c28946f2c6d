"""Projections of one input: query, key and value, gate and up."""
