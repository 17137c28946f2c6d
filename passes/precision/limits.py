"""What half precision can hold.

float16 has no finite value beyond 65504 and none but 0 below 6e-8; bfloat16 has the range of
float32. A divisor of 1e-9 becomes 0 in float16, and its quotients become infinite.
"""

from __future__ import annotations

from typing import Literal

import ml_dtypes
import numpy as np
import onnx_ir as ir

__all__ = ["Misfit", "misfit", "to_half"]

Misfit = Literal["large", "small"]
"""Finite values become infinite, or values vanish or lose more than `MAX_LOSS`."""

MAX_LOSS = 0.01
"""Largest share of a tensor's norm that may be lost; rounding alone takes less than 0.4 %."""

_LARGEST = {
    ir.DataType.FLOAT16: float(np.finfo(np.float16).max),
    ir.DataType.BFLOAT16: float(ml_dtypes.finfo(ml_dtypes.bfloat16).max),
}


def misfit(array: np.ndarray, dtype: ir.DataType, *, divides: bool = False) -> Misfit | None:
    """Return why a tensor cannot be stored in `dtype`, or None where it can.

    Args:
        array: float32 values.
        dtype: FLOAT16 or BFLOAT16.
        divides: Each element counts by itself, because something is divided by it: one that
            vanishes is an infinity, however large its neighbours are.
    """
    finite = array[np.isfinite(array)]
    if not finite.size:
        return None
    magnitude = np.abs(finite)
    if float(magnitude.max()) > _LARGEST[dtype]:
        return "large"
    if float(magnitude.min()) >= float(ml_dtypes.finfo(dtype.numpy()).smallest_normal):
        return None  # Half a step of a normal number is below MAX_LOSS.
    lost = np.abs(finite - to_half(finite, dtype).astype(np.float32))
    if divides:
        return "small" if bool(np.any(lost > MAX_LOSS * magnitude)) else None
    # Scaled, because squares of tiny numbers vanish in any precision.
    scale = float(magnitude.max()) or 1.0
    norms = [float(np.linalg.norm((a / scale).astype(np.float64))) for a in (lost, finite)]
    return "small" if norms[0] > MAX_LOSS * norms[1] else None


def to_half(array: np.ndarray, dtype: ir.DataType) -> np.ndarray:
    """Round to the nearest value of `dtype`, half to even."""
    return array.astype(dtype.numpy())
