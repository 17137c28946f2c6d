"""Range and distribution of a tensor's values, in one pass and bounded memory.

A value is counted by the upper 16 bits of its float32 pattern: sign, exponent and 7 bits of
mantissa. That is a histogram of 65536 fixed bins, each at most 2^-7 of its value wide, so no
range has to be known beforehand, the order of the samples does not matter, histograms add
exactly, and NaN and infinity fall into bins of their own. At 8 bits a quantization step at full
range is 2^-7 of the largest value, and the bins below it are finer. The doubling histogram of
equal bins was measured 1.2 times as expensive, and needs a pass for the range before it counts.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from irtools.data import select_values
from irtools.statistics.base import HistogramResult, MinMaxResult

__all__ = ["HistogramAccumulator", "MinMaxAccumulator", "MovingRangeAccumulator"]

_NUM_BINS: Final = 1 << 16
_INFINITY: Final = 0x7F80  # First pattern of an infinity or NaN.
_SIGN: Final = 0x8000


class MinMaxAccumulator:
    """Running range of the finite values."""

    state_bytes = 64

    def __init__(self) -> None:
        self._low = np.inf
        self._high = -np.inf
        self._num_nonfinite = 0

    def update(self, x: np.ndarray, keep: np.ndarray | None) -> None:
        """Add a tensor; `keep` as in `Batch`."""
        self.add(select_values(x, keep))

    def add(self, values: np.ndarray) -> None:
        """Add flat values."""
        if values.size == 0:
            return
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            finite = values[np.isfinite(values)]
            self._num_nonfinite += values.size - finite.size
            if finite.size == 0:
                return
            low, high = float(finite.min()), float(finite.max())
        self._low, self._high = min(self._low, low), max(self._high, high)

    def result(self) -> MinMaxResult:
        """Return the range; [0, 0] where nothing finite was seen."""
        if self._low > self._high:
            return MinMaxResult(0.0, 0.0, self._num_nonfinite)
        return MinMaxResult(self._low, self._high, self._num_nonfinite)


class MovingRangeAccumulator:
    """Moving averages of the ends of the finite values, one step per update."""

    state_bytes = 64

    def __init__(self, constant: float) -> None:
        self._constant = constant
        self._ends: np.ndarray | None = None
        self._num_nonfinite = 0

    def update(self, x: np.ndarray, keep: np.ndarray | None) -> None:
        """Add a tensor; `keep` as in `Batch`."""
        values = select_values(x, keep)
        finite = values[np.isfinite(values)]
        self._num_nonfinite += values.size - finite.size
        if finite.size:
            ends = np.array([finite.min(), finite.max()], np.float64)
            before = ends if self._ends is None else self._ends
            self._ends = before + self._constant * (ends - before)

    def result(self) -> MinMaxResult:
        """Return the ends; [0, 0] where nothing finite was seen."""
        low, high = (0.0, 0.0) if self._ends is None else map(float, self._ends)
        return MinMaxResult(low, high, self._num_nonfinite)


class HistogramAccumulator:
    """Counts by bit pattern, along with the exact range."""

    state_bytes = 8 * _NUM_BINS

    def __init__(self) -> None:
        self._counts = np.zeros(_NUM_BINS, np.int64)
        self._range = MinMaxAccumulator()

    def update(self, x: np.ndarray, keep: np.ndarray | None) -> None:
        """Add a tensor; `keep` as in `Batch`."""
        values = np.ascontiguousarray(select_values(x, keep), dtype=np.dtype("<f4"))
        self._range.add(values)
        upper = values.view(np.dtype("<u2"))[1::2]
        self._counts += np.bincount(upper, minlength=_NUM_BINS)

    def result(self) -> HistogramResult:
        """Return the bins that hold anything, ascending."""
        span = self._range.result()
        counts = self._counts.copy()
        counts[_INFINITY:_SIGN] = 0
        counts[_SIGN + _INFINITY :] = 0
        # Zero and the smallest subnormals of either sign are one bin around 0.
        counts[0] += counts[_SIGN]
        counts[_SIGN] = 0
        filled = _ASCENDING[counts[_ASCENDING] > 0]
        lower, upper = _edges(filled)
        lower, upper = np.maximum(lower, span.low), np.minimum(upper, span.high)
        return HistogramResult(
            centers=((lower + upper) / 2).astype(np.float32),
            counts=counts[filled],
            low=span.low,
            high=span.high,
            widths=(upper - lower).astype(np.float32),
            num_nonfinite=span.num_nonfinite,
        )


# Negative patterns grow away from zero, so they come in reverse.
_ASCENDING: Final = np.concatenate(
    [np.arange(_SIGN + _INFINITY - 1, _SIGN - 1, -1), np.arange(_INFINITY)]
)


def _edges(patterns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return lower and upper value of bins, float64."""
    bits = patterns.astype(np.uint32)
    inner = (bits << 16).view(np.float32).astype(np.float64)
    outer = ((bits << 16) | 0xFFFF).view(np.float32).astype(np.float64)
    is_zero = patterns == 0
    inner, outer = np.where(is_zero, 0.0, inner), np.where(is_zero, 0.0, outer)
    return np.minimum(inner, outer), np.maximum(inner, outer)
