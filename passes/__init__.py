"""Passes that transform a model."""
