"""Whether the outputs after a pass keep what the pass promises."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from irtools.errors import VerificationError
from irtools.passmanager import Exactness
from irtools.words import counted, printable

__all__ = ["RELATIVE_L2", "check_outputs", "check_runs", "same_bits"]

RELATIVE_L2 = 1e-5
"""Largest relative L2 error of a reassociating pass in float32."""

_RELATIVE_L2_OF = {"float16": 1e-2, "bfloat16": 5e-2}

Outputs = Mapping[str, np.ndarray]


def check_runs(
    before: Sequence[Outputs],
    after: Sequence[Outputs],
    exactness: Exactness | None,
    free: Sequence[Mapping[str, frozenset[int]]],
    rounding: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Compare run by run; `free` has the free axes of each. Arguments as in `check_outputs`.

    Raises:
        VerificationError: As `check_outputs`.
    """
    for expected, found, axes in zip(before, after, free, strict=True):
        check_outputs(expected, found, exactness, rounding, axes)


def check_outputs(
    expected: Outputs,
    found: Outputs,
    exactness: Exactness | None,
    rounding: Mapping[str, float] = MappingProxyType({}),
    free_axes: Mapping[str, frozenset[int]] = MappingProxyType({}),
) -> None:
    """Compare the outputs before and after a pass.

    Args:
        expected: Output name to array before the pass.
        found: The same after it.
        exactness: What the pass promises; None compares shapes and types only.
        rounding: Relative L2 error that a reassociating pass may make, by output, because other
            rounding alone makes about as much of it; infinite where rounding decides its size.
        free_axes: Axes of outputs that may have another size.

    Raises:
        VerificationError: They differ by more than the promise; names the output.
    """
    for name, before in expected.items():
        shown = printable(name)
        after = found.get(name)
        if after is None:
            raise VerificationError(f"output '{shown}' is missing after the pass")
        may = free_axes.get(name, frozenset())
        if math.isinf(rounding.get(name, 0.0)):
            may = frozenset(range(before.ndim))
        if before.dtype != after.dtype or not _same_shape(before.shape, after.shape, may):
            raise VerificationError(
                f"output '{shown}' was {before.dtype}{list(before.shape)} and is "
                f"{after.dtype}{list(after.shape)} after the pass"
            )
        if exactness is None or before.dtype.kind in "OSU":
            continue
        if before.shape == after.shape:
            _check_numbers(shown, before, after, exactness, rounding.get(name, 0.0))
        elif np.isfinite(before.astype(np.float64)).all():
            _check_finite(shown, after)


def _same_shape(before: tuple[int, ...], after: tuple[int, ...], free_axes: frozenset[int]) -> bool:
    return len(before) == len(after) and all(
        a == b or axis in free_axes for axis, (a, b) in enumerate(zip(before, after, strict=True))
    )


def _check_finite(name: str, after: np.ndarray) -> None:
    bad = int(np.count_nonzero(~np.isfinite(after.astype(np.float64))))
    if bad:
        raise VerificationError(
            f"output '{name}' has NaN or infinity at {counted(bad, 'place')} where the model "
            "before the pass has none"
        )


def _check_numbers(
    name: str, before: np.ndarray, after: np.ndarray, exactness: Exactness, rounding: float
) -> None:
    if same_bits(before, after):
        return
    y, other = before.astype(np.float64), after.astype(np.float64)
    finite, finite_after = np.isfinite(y), np.isfinite(other)
    if not np.array_equal(finite, finite_after):
        number = int(np.count_nonzero(finite != finite_after))
        raise VerificationError(
            f"output '{name}' has NaN or infinity at {counted(number, 'place')} where the model "
            "before the pass has none, or the other way round"
        )
    difference = np.where(finite, y - other, 0.0)
    error = _relative(difference, np.where(finite, y, 0.0))
    match exactness:
        case Exactness.EXACT:
            limit, promise = 0.0, "the same bits"
        case Exactness.REASSOCIATED:
            limit = max(_RELATIVE_L2_OF.get(before.dtype.name, RELATIVE_L2), rounding)
            promise = f"a relative L2 error of at most {limit:g}"
        case Exactness.LOSSY:
            return
    if error > limit or exactness is Exactness.EXACT:
        raise VerificationError(
            f"output '{name}' changed: relative L2 error {error:.3g}, largest difference "
            f"{float(np.abs(difference).max(initial=0.0)):.3g}; the pass promises {promise}"
        )


def _relative(difference: np.ndarray, reference: np.ndarray) -> float:
    noise, signal = float(np.linalg.norm(difference)), float(np.linalg.norm(reference))
    if noise == 0:
        return 0.0
    return noise / signal if signal else float("inf")


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are equal; NaN equals NaN, and zero minus zero."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind in "OSU":
        return bool((a == b).all())
    if a.dtype.kind in "fc" or a.dtype.name == "bfloat16":
        # No runtime promises NaN payloads or the sign of zero.
        return bool(((a == b) | ((a != a) & (b != b))).all())
    return bool(np.array_equal(a, b))
