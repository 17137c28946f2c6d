"""Fusion: many small operators become one that runtimes know."""
