"""Frontends: what makes a model."""
