"""Rotation: another orthogonal basis for the residual stream, which quantization likes better."""
