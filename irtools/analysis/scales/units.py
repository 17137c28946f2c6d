"""Units of scaling, and where they lie in a tensor.

A *layout* is an array of unit numbers of the rank of a tensor, of size 1 along every axis on which
the scale does not depend: query heads of [batch, heads, positions, width] have a layout of
[1, heads, 1, width]. A tensor with a layout L is divided by s[L]. Layouts are moved through a graph
as the tensors are, by numpy's own reshape, transpose and indexing; where two of them meet, their
units become one (union-find).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np

__all__ = ["FIXED", "Layout", "Units", "aligned", "channel_layout"]

Layout: TypeAlias = np.ndarray

FIXED = 0
"""The unit of elements that keep their scale."""


class Units:
    """The units of one trace, and which of them are the same."""

    def __init__(self) -> None:
        self._parent = [FIXED]

    def fresh(self, count: int) -> np.ndarray:
        """Return the numbers of new units, [count]."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count)

    def unite(self, a: Layout, b: Layout) -> None:
        """Let elements that meet, broadcast, be of the same unit."""
        left, right = np.broadcast_arrays(a, b)
        pairs = np.unique(np.stack([left.reshape(-1), right.reshape(-1)]), axis=1)
        for one, other in pairs.T.tolist():
            self._join(one, other)

    def reduce(self, layout: Layout, axis: int) -> Layout:
        """Return a layout that is the same all along an axis, of size 1 there."""
        first = layout.take([0], axis)
        if layout.shape[axis] > 1:
            self.unite(layout, first)
        return first

    def roots(self, layout: Layout) -> Layout:
        """Return the layout with one number for each unit."""
        numbers, places = np.unique(layout, return_inverse=True)
        found = np.array([self._root(int(n)) for n in numbers], dtype=np.int64)
        return found[places].reshape(layout.shape)

    def is_fixed(self, layout: Layout) -> bool:
        """Whether nothing with this layout can be scaled."""
        return not self.roots(layout).any()

    def _root(self, unit: int) -> int:
        parent = self._parent
        while parent[unit] != unit:
            parent[unit] = parent[parent[unit]]
            unit = parent[unit]
        return unit

    def _join(self, one: int, other: int) -> None:
        low, high = sorted((self._root(one), self._root(other)))
        self._parent[high] = low


def channel_layout(units: Sequence[int] | np.ndarray, rank: int, axis: int) -> Layout:
    """Return the layout of a tensor of which one axis holds the units."""
    shape = [1] * rank
    shape[axis] = len(units)
    return np.asarray(units, np.int64).reshape(shape)


def aligned(layout: Layout, rank: int) -> Layout | None:
    """Return a layout for a tensor of another rank, aligned at the end as broadcasting does.

    None where axes that would go hold more than one unit.
    """
    if layout.ndim <= rank:
        return layout.reshape((1,) * (rank - layout.ndim) + layout.shape)
    gone = layout.shape[: layout.ndim - rank]
    return layout.reshape(layout.shape[layout.ndim - rank :]) if _all_one(gone) else None


def _all_one(sizes: Iterable[int]) -> bool:
    return all(size == 1 for size in sizes)
