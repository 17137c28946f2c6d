"""Passes that compute fewer positions of a sequence."""
