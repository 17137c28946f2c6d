"""Pruning: structure or weights are removed."""
