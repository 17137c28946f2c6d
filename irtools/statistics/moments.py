"""First and second moments per channel, and Gram matrices.

Sums run in float64. A position with a NaN or an infinity in it is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from irtools.data import select_rows
from irtools.errors import UnsupportedError
from irtools.statistics.base import GramResult

__all__ = [
    "CountAccumulator",
    "GramAccumulator",
    "HeadGramAccumulator",
    "MeanAccumulator",
    "RangeAccumulator",
    "SquareAccumulator",
    "TurnedPeakAccumulator",
    "gram_bytes",
]

# Rows gathered before a product: enough that the product outweighs adding it in float64.
_GRAM_ROWS: Final = 512

# Rows summed in float32: few enough for its digits and for the cache.
_BLOCK_ROWS: Final = 64


class _ChannelAccumulator:
    """State per channel, made at the first update, when the number of channels is known."""

    def __init__(self, axis: int) -> None:
        self._axis = axis
        self._state: np.ndarray | None = None
        self._count = 0

    @property
    def state_bytes(self) -> int:
        return 0 if self._state is None else self._state.nbytes

    def update(self, x: np.ndarray, keep: np.ndarray | None) -> None:
        """Add a tensor; `keep` as in `Batch`."""
        rows = _finite_rows(channel_rows(x, self._axis, keep))
        if self._state is None:
            self._state = self._empty(rows.shape[1])
        if len(rows):
            self._add(self._state, rows)
            self._count += len(rows)

    def _empty(self, channels: int) -> np.ndarray:
        return np.zeros(channels, np.float64)

    def _add(self, state: np.ndarray, rows: np.ndarray) -> None:
        raise NotImplementedError

    def _get(self) -> np.ndarray:
        return np.zeros(0) if self._state is None else self._state


class RangeAccumulator(_ChannelAccumulator):
    """min x and max x per channel."""

    def _empty(self, channels: int) -> np.ndarray:
        return np.stack([np.full(channels, np.inf), np.full(channels, -np.inf)])

    def _add(self, state: np.ndarray, rows: np.ndarray) -> None:
        np.minimum(state[0], rows.min(axis=0), out=state[0])
        np.maximum(state[1], rows.max(axis=0), out=state[1])

    def result(self) -> np.ndarray:
        """Return float32 [2, C]; zeros where nothing finite was seen."""
        found = self._get().reshape(2, -1)
        return np.where(np.isfinite(found), found, 0.0).astype(np.float32)


class MeanAccumulator(_ChannelAccumulator):
    """Mean per channel."""

    def _add(self, state: np.ndarray, rows: np.ndarray) -> None:
        state += _column_sums(rows)

    def result(self) -> np.ndarray:
        """Return float64 [C]."""
        return self._get() / max(self._count, 1)


class SquareAccumulator(MeanAccumulator):
    """Mean of x^2 per channel."""

    def _add(self, state: np.ndarray, rows: np.ndarray) -> None:
        state += _square_sums(rows)


class TurnedPeakAccumulator(_ChannelAccumulator):
    """max over positions, and over all that a pair is turned by, of the magnitude per channel."""

    def __init__(
        self, axis: int, pairs: Sequence[tuple[int, int]], angles: Sequence[float]
    ) -> None:
        super().__init__(axis)
        self._first = np.array([first for first, _ in pairs], np.int64)
        self._second = np.array([second for _, second in pairs], np.int64)
        self._angles = np.array(angles)

    def _add(self, state: np.ndarray, rows: np.ndarray) -> None:
        for block in _blocks(rows):
            peaks = np.abs(block)
            x, y = block[:, self._first], block[:, self._second]
            norm, start = np.hypot(x, y), np.arctan2(y, x)
            peaks[:, self._first] = norm * _largest_cosine(start, self._angles)
            peaks[:, self._second] = norm * _largest_cosine(start - np.pi / 2, self._angles)
            np.maximum(state, peaks.max(axis=0), out=state)

    def result(self) -> np.ndarray:
        """Return float32 [C]; zeros where nothing finite was seen."""
        return self._get().astype(np.float32)


def _largest_cosine(start: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Return the largest |cos(start + t)| for t from 0 to an angle, both ends included."""
    end = start + angles
    passes_peak = np.floor(end / np.pi) > np.floor(start / np.pi)
    ends = np.maximum(np.abs(np.cos(start)), np.abs(np.cos(end)))
    return np.asarray(np.where(passes_peak, 1.0, ends))


class HeadGramAccumulator(_ChannelAccumulator):
    """X^T X of each head, with a constant-1 column."""

    def __init__(self, axis: int, size: int) -> None:
        super().__init__(axis)
        self._size = size

    def _empty(self, channels: int) -> np.ndarray:
        return np.zeros((channels // self._size, self._size + 1, self._size + 1))

    def _add(self, state: np.ndarray, rows: np.ndarray) -> None:
        for start in range(0, len(rows), _GRAM_ROWS):
            part = rows[start : start + _GRAM_ROWS]
            heads = part.reshape(len(part), -1, self._size).transpose(1, 0, 2)
            whole = np.concatenate([heads, np.ones((*heads.shape[:2], 1), np.float32)], axis=2)
            state += whole.transpose(0, 2, 1) @ whole

    def result(self) -> np.ndarray:
        """Return float64 [C / size, size + 1, size + 1]."""
        return self._get()


class CountAccumulator(_ChannelAccumulator):
    """Number of positions."""

    def _empty(self, channels: int) -> np.ndarray:
        return np.zeros(0)

    def _add(self, state: np.ndarray, rows: np.ndarray) -> None:
        """Nothing but their number is kept."""

    def result(self) -> int:
        """Return it."""
        return self._count


class GramAccumulator:
    """X^T X with a constant-1 column, and X^T Y where there is a Y.

    Products of a few hundred rows are made in float32, where BLAS is fast and their sum is short,
    and added up in float64.
    """

    def __init__(self, axis: int) -> None:
        self._axis = axis
        self._pending: list[tuple[np.ndarray, np.ndarray | None]] = []
        self._xx: np.ndarray | None = None
        self._xy: np.ndarray | None = None
        self._yy: np.ndarray | None = None
        self._count = 0

    @property
    def state_bytes(self) -> int:
        held = [self._xx, self._xy, self._yy]
        held += [array for pair in self._pending for array in pair]
        return sum(array.nbytes for array in held if array is not None)

    def update(
        self, x: np.ndarray, keep: np.ndarray | None, against: np.ndarray | None = None
    ) -> None:
        """Add a tensor and, with the same positions, what it is to explain."""
        rows = channel_rows(x, self._axis, keep)
        targets = None if against is None else channel_rows(against, self._axis, keep)
        if targets is not None and len(targets) != len(rows):
            raise UnsupportedError(
                f"a Gram matrix needs two tensors with the same positions, found "
                f"{len(rows)} and {len(targets)} of them"
            )
        good = _is_finite_row(rows)
        if targets is not None:
            good = good & _is_finite_row(targets)
        if not good.all():
            rows, targets = rows[good], None if targets is None else targets[good]
        self._pending.append((rows, targets))
        if sum(len(pair[0]) for pair in self._pending) >= _GRAM_ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        x = np.concatenate([pair[0] for pair in self._pending])
        parts = [pair[1] for pair in self._pending if pair[1] is not None]
        self._pending.clear()
        self._count += len(x)
        self._xx = _add(self._xx, _bordered(x))
        if parts:
            y = np.concatenate(parts)
            xy = np.vstack([x.T @ y, _column_sums(y)])
            self._xy = _add(self._xy, xy)
            self._yy = _add(self._yy, _square_sums(y))

    def result(self) -> GramResult:
        """Return the moments."""
        self._flush()
        xx = np.zeros((1, 1)) if self._xx is None else self._xx
        return GramResult(xx, self._xy, self._yy, self._count)


def gram_bytes(channels: int, targets: int) -> int:
    """Return about what a Gram accumulator holds at its peak, products and rows included."""
    products = (channels + 1) * (channels + 1 + targets)
    return 12 * products + 4 * 2 * _GRAM_ROWS * (channels + targets)


def channel_rows(x: np.ndarray, axis: int, keep: np.ndarray | None) -> np.ndarray:
    """Return float32 [n, C] of the positions that count.

    Raises:
        UnsupportedError: The tensor has no such axis.
    """
    if not -x.ndim <= axis < x.ndim:
        raise UnsupportedError(f"a tensor of shape {list(x.shape)} has no channel axis {axis}")
    return np.asarray(select_rows(x, axis, keep), dtype=np.float32)


def _bordered(x: np.ndarray) -> np.ndarray:
    """Return [X 1]^T [X 1] in float64."""
    channels = x.shape[1]
    total = np.empty((channels + 1, channels + 1))
    # numpy hands x.T @ x to BLAS as a symmetric product: half the work.
    total[:channels, :channels] = x.T @ x
    total[channels, :channels] = total[:channels, channels] = _column_sums(x)
    total[channels, channels] = len(x)
    return total


def _column_sums(rows: np.ndarray) -> np.ndarray:
    """Return the float64 sums of the columns of [n, C].

    Blocks short enough for float32 go through BLAS, a fifth of the time of a cast to float64.
    """
    total = np.zeros(rows.shape[1])
    for block in _blocks(rows):
        total += np.ones(len(block), np.float32) @ block
    return total


def _square_sums(rows: np.ndarray) -> np.ndarray:
    """Return the float64 sums of the squares of the columns of [n, C]."""
    total = np.zeros(rows.shape[1])
    buffer = np.empty((min(len(rows), _BLOCK_ROWS), rows.shape[1]), np.float32)
    for block in _blocks(rows):
        # One buffer that stays in cache; a fresh one per block costs more than the squares.
        squares = np.square(block, out=buffer[: len(block)])
        total += np.ones(len(block), np.float32) @ squares
    return total


def _blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    return (rows[start : start + _BLOCK_ROWS] for start in range(0, len(rows), _BLOCK_ROWS))


def _add(total: np.ndarray | None, part: np.ndarray) -> np.ndarray:
    if total is None:
        return part.astype(np.float64)
    total += part
    return total


def _finite_rows(rows: np.ndarray) -> np.ndarray:
    good = _is_finite_row(rows)
    return rows if good.all() else rows[good]


def _is_finite_row(rows: np.ndarray) -> np.ndarray:
    # The minimum and maximum of a row are NaN or infinite exactly where one of its values is,
    # and over the whole array they cost a tenth of a look at each value.
    if rows.size == 0 or (np.isfinite(rows.min()) and np.isfinite(rows.max())):
        return np.ones(len(rows), bool)
    return np.asarray(np.isfinite(rows).all(axis=1))
