"""Where the units of a channel group lie along an axis of a tensor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

__all__ = ["IndexMap"]


@dataclass(frozen=True)
class IndexMap:
    """Units laid out along an axis: element (o, u, i) is at `offset + (o * units + u) * inner + i`.

    Neurons are `IndexMap(1536)`; heads of 32 are `IndexMap(12, inner=32)`; heads in a packed
    query-key-value matrix are `IndexMap(12, inner=32, outer=3)`.

    Attributes:
        units: Number of units.
        inner: Neighbouring elements of one unit.
        outer: Times the whole pattern is repeated; None where only known when the model runs
            (batch and heads merged into one axis), which no constant tensor ever has: `fitted`.
        offset: First element, after what a Concat puts before it.
    """

    units: int
    inner: int = 1
    outer: int | None = 1
    offset: int = 0

    @property
    def size(self) -> int | None:
        """Number of elements that the units occupy."""
        return None if self.outer is None else self.outer * self.units * self.inner

    def indices(self, units: Iterable[int]) -> np.ndarray:
        """Return the elements of some units, ascending: int64 [len(units) * outer * inner]."""
        assert self.outer is not None, "axes of constants are fitted"
        wanted = np.asarray(sorted(units), dtype=np.int64)
        blocks = np.arange(self.outer, dtype=np.int64)[:, None] * self.units + wanted[None, :]
        elements = blocks.reshape(-1, 1) * self.inner + np.arange(self.inner, dtype=np.int64)
        return self.offset + elements.reshape(-1)

    def unit_of(self, index: int) -> int | None:
        """Return the unit that an element belongs to, or None where it is outside."""
        place = index - self.offset
        if place < 0 or (self.size is not None and place >= self.size):
            return None
        return place // self.inner % self.units

    def matrix(self) -> np.ndarray:
        """Return the elements by unit, ascending: int64 [units, outer * inner]."""
        return np.stack([self.indices([unit]) for unit in range(self.units)])

    def grouped(self, outer: int, units: int, inner: int) -> IndexMap:
        """Take coarser units: old unit (o, u, i) of `outer x units x inner` joins new unit u."""
        assert outer * units * inner == self.units
        times = None if self.outer is None else self.outer * outer
        return IndexMap(units, inner * self.inner, times, self.offset)

    def fitted(self, length: int) -> IndexMap | None:
        """Take the repetitions from the length of the axis, or return None where it has none such.

        A shape that was not inferred leaves them open until channels meet a constant: a flattened
        [T, C] with an unknown T that is multiplied by 1920 rows of 64 channels has T = 30.
        """
        if self.outer is not None:
            return self
        outer, rest = divmod(length - self.offset, self.units * self.inner)
        return None if rest or outer < 1 else replace(self, outer=outer)

    def shifted(self, offset: int) -> IndexMap:
        """Put `offset` elements before the first one."""
        return IndexMap(self.units, self.inner, self.outer, self.offset + offset)
