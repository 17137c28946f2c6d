"""How far rounding alone moves the outputs of a model.

A pass that computes the same sums in another order cannot be held to less than what the model
itself makes of the last bit. Where outputs are small differences of large numbers that is a part
of them, and elsewhere next to nothing, so it is measured and not taken from their size: once with
the last bit of inputs and weights changed at random (stochastic arithmetic, Parker 1997; Vignes
1993), once with the runtime's own fusions, which reassociate as passes do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from irtools.model import Model

__all__ = ["own_rounding", "perturbed_feeds", "perturbed_model"]

Outputs = Mapping[str, np.ndarray]

_LEAST_ELEMENTS = 16
"""Smaller weights may be scales that sizes are computed with."""
_MOST_BYTES = 256 << 20
"""Above it the weights stay: a copy of them in memory and on disk would cost too much."""


def perturbed_feeds(
    feeds: Sequence[Mapping[str, np.ndarray]], seed: int = 0
) -> list[dict[str, np.ndarray]]:
    """Return feeds whose floating point numbers are the next larger or smaller ones."""
    rng = np.random.default_rng(seed)
    return [{name: _moved(array, rng) for name, array in one.items()} for one in feeds]


def perturbed_model(model: Model, seed: int = 0) -> Model:
    """Return a copy of a model whose float32 and float64 weights are moved likewise.

    The model itself where it is large.
    """
    if model.weight_bytes > _MOST_BYTES:
        return model
    rng = np.random.default_rng(seed)
    moved = model.clone()
    for value in moved.ir.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
            continue
        array = tensor.numpy()
        if array.size >= _LEAST_ELEMENTS:
            value.const_value = ir.tensor(_moved(array, rng), name=value.name)
    return moved


def _moved(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if array.dtype not in (np.float32, np.float64):
        return array
    towards = np.where(rng.integers(0, 2, array.shape, dtype=bool), np.inf, -np.inf)
    moved = np.nextafter(array, towards.astype(array.dtype))
    # Zeros are often exact on purpose (masks, padding), and infinities stand for something.
    kept = (array == 0) | ~np.isfinite(array) | ~np.isfinite(moved)
    return np.asarray(np.where(kept, array, moved), array.dtype)


def own_rounding(
    before: Sequence[Outputs], others: Sequence[Sequence[Outputs]]
) -> dict[str, float]:
    """Return the relative L2 error that rounding alone makes, by output: the largest of all runs.

    Infinite where rounding alone decides how large an output is.

    Args:
        before: Outputs of the model, run by run.
        others: Outputs of the same runs, rounded otherwise.
    """
    found: dict[str, float] = {}
    for runs in others:
        for expected, other in zip(before, runs, strict=True):
            for name, array in expected.items():
                error = _error(array, other[name])
                found[name] = max(found.get(name, 0.0), error)
    return found


def _error(expected: np.ndarray, other: np.ndarray) -> float:
    if expected.shape != other.shape:
        return float("inf")
    if expected.dtype.kind in "OSU":
        return 0.0
    y, moved = expected.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(y) & np.isfinite(moved)
    noise = float(np.linalg.norm(np.where(finite, y - moved, 0.0)))
    signal = float(np.linalg.norm(np.where(finite, y, 0.0)))
    if noise == 0:
        return 0.0
    return noise / signal if signal else float("inf")
