"""Smoothing: scales of channels that quantization likes better."""
