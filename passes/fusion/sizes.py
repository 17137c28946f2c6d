"""Sizes of tensors as tensors."""

from __future__ import annotations

import onnx_ir as ir

from irtools.analysis.dims import Dim
from irtools.editing import Place

__all__ = ["size_of"]


def size_of(make: Place, value: ir.Value, axis: int, size: Dim) -> ir.Value:
    """Return [size], which is that of an axis of `value`."""
    if isinstance(size, int):
        return make.integers([size])
    return make.shared("Shape", [value], {"start": axis, "end": axis + 1}, key=("size", size))
