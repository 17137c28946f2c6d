"""Changing the vectors along one axis of a weight, piece by piece."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["along"]

_PIECE = 1 << 19
"""Elements that are changed at a time, in float64."""


def along(array: np.ndarray, axis: int, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return an array whose vectors along an axis are changed, float32.

    Args:
        array: Any shape.
        axis: One of its axes.
        change: Takes vectors [n, D] as float64 and returns as many.
    """
    source = np.moveaxis(array, axis, -1)
    result = np.empty(array.shape, np.float32)
    target = np.moveaxis(result, axis, -1)
    if source.ndim == 1:
        target[...] = change(source[None].astype(np.float64))[0]
        return result
    step = max(_PIECE * len(source) // max(source.size, 1), 1)
    for start in range(0, len(source), step):
        part = source[start : start + step]
        rows = part.astype(np.float64).reshape(-1, source.shape[-1])
        target[start : start + step] = change(rows).reshape(part.shape)
    return result
