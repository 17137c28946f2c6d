"""Backends: what runs a model and knows a target."""
