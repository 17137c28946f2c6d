"""Passes that let easy samples leave early."""
