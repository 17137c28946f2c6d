"""Scales of blocks as codes of their own: 8 bits times a step for each output channel.

    s = c t,    c from -127 to 127 and never 0, t float32 for each row

"Double quantization" (Dettmers et al. 2023, QLoRA). The block scales of a row are of one order of
magnitude, so that t / 2 is well below what rounding to 4 bits leaves to choose, and codes of
weights are made for the scale as it is stored. Steps have 16 significant bits: c t is exact in
float32.
"""

from __future__ import annotations

import numpy as np

__all__ = ["coded", "codes_and_steps"]

_MOST = np.float32(127)
_DROPPED = np.uint32(8)
"""Bits of float32 that steps leave to codes."""


def coded(scale: np.ndarray) -> np.ndarray:
    """Return the nearest scales that have codes.

    Args:
        scale: float32 [R, B]; negative ones are allowed, and 0 where any will do.

    Returns:
        float32 [R, B], no zeros; of each row the largest magnitude is 127 steps.
    """
    top = np.abs(scale).max(axis=1, keepdims=True)
    steps = _short(np.where(top > 0, top, np.float32(1)) / _MOST)
    # A block of weights near zero keeps a scale and its sign; one of zeros takes the largest.
    codes = np.rint(np.where(scale == 0, steps * _MOST, scale) / steps)
    least = np.where(codes == 0, np.copysign(np.float32(1), scale), codes)
    return np.asarray(least.clip(-_MOST, _MOST) * steps)


def codes_and_steps(scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what scales that `coded` returned are stored as: int8 [R, B] and float32 [R, 1]."""
    # The largest code is 127, so that its step comes out as it was.
    steps = np.abs(scale).max(axis=1, keepdims=True) / _MOST
    return np.rint(scale / steps).astype(np.int8), steps


def _short(steps: np.ndarray) -> np.ndarray:
    """Round positive numbers to 16 significant bits."""
    raw = np.ascontiguousarray(steps, np.float32).view(np.uint32)
    half = np.uint32(1) << (_DROPPED - np.uint32(1))
    return ((raw + half) >> _DROPPED << _DROPPED).view(np.float32)
