"""Choosing the output that a metric reads."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from irtools.errors import DataError

__all__ = ["find_output"]


def find_output(outputs: Mapping[str, np.ndarray], wanted: tuple[str, ...]) -> np.ndarray:
    """Return the first output whose name contains one of `wanted`, else the first float output.

    Raises:
        DataError: No output is a floating-point tensor.
    """
    floats = {name: array for name, array in outputs.items() if is_float(array)}
    for part in wanted:
        for name, array in floats.items():
            if part in name.lower():
                return array
    if not floats:
        raise DataError(
            f"the metric needs a floating-point output; the model gives {', '.join(outputs)}"
        )
    return next(iter(floats.values()))


def is_float(array: np.ndarray) -> bool:
    """Whether the array holds floating-point numbers, bfloat16 included."""
    return array.dtype.kind == "f" or array.dtype.name in {"bfloat16", "float8_e4m3fn"}
