"""What half precision can hold."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir

__all__ = ["fits", "to_half"]

_LARGEST = {
    ir.DataType.FLOAT16: float(np.finfo(np.float16).max),
    ir.DataType.BFLOAT16: float(ml_dtypes.finfo(ml_dtypes.bfloat16).max),
}


def fits(array: np.ndarray, dtype: ir.DataType) -> bool:
    """Whether no finite value of `array` becomes infinite in `dtype` (65504 for FLOAT16)."""
    finite = np.abs(array[np.isfinite(array)])
    return bool(finite.max(initial=0.0) <= _LARGEST[dtype])


def to_half(array: np.ndarray, dtype: ir.DataType) -> np.ndarray:
    """Round to the nearest value of `dtype`, half to even."""
    return array.astype(dtype.numpy())
