"""Reshape and Flatten: row-major order decides where units go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from irtools.analysis.dims import Dim, multiply
from irtools.analysis.scales.trace import Port, Trace
from irtools.analysis.scales.units import Layout

__all__ = ["reshape"]

_Run: TypeAlias = tuple[tuple[int, int], tuple[int, int]]
"""Axes of one shape, and those of another that hold the same elements; ends not included."""


def reshape(port: Port, trace: Trace) -> None:
    """The layout is spread over the axes it shares with others, and reshaped with them."""
    node = port.node
    x, y = trace.shapes.shape(node.inputs[0]), trace.shapes.shape(node.outputs[0])
    if x is None or y is None or (port.is_input and port.position > 0):
        raise port.refuse("shape")
    here, there = (x, y) if port.is_input else (y, x)
    moved = _moved(port.layout, here, there)
    if moved is None:
        raise port.refuse("shape")
    if port.is_input:
        trace.couple(node.outputs[0], moved)
    else:
        trace.operand(port, 0, moved)


def _moved(layout: Layout, here: Sequence[Dim], there: Sequence[Dim]) -> Layout | None:
    """Return a layout after a reshape; None where units meet an axis of unknown size."""
    spread: list[int] = []
    sizes: list[int] = []
    for left, right in _all_runs(here, there):
        own, other = here[slice(*left)], there[slice(*right)]
        if all(n == 1 for n in layout.shape[slice(*left)]):
            spread += [1] * len(own)
            sizes += [1] * len(other)
            continue
        before, after = _numbers(own), _numbers(other)
        if before is None or after is None:
            return None
        spread += before
        sizes += after
    return np.asarray(np.broadcast_to(layout, spread).reshape(sizes))


def _all_runs(here: Sequence[Dim], there: Sequence[Dim]) -> list[_Run]:
    """Split two shapes of one tensor into runs of axes that hold the same elements.

    From the front, and where sizes are not known from the end; what is left is one run.
    """
    front = _runs(here, there)
    i, j = (front[-1][0][1], front[-1][1][1]) if front else (0, 0)
    m, n = len(here), len(there)
    back = _runs(here[i:][::-1], there[j:][::-1])
    ends = [((m - b, m - a), (n - d, n - c)) for (a, b), (c, d) in reversed(back)]
    p, q = (ends[0][0][0], ends[0][1][0]) if ends else (m, n)
    between = [((i, p), (j, q))] if i < p or j < q else []
    return [*front, *between, *ends]


def _runs(here: Sequence[Dim], there: Sequence[Dim]) -> list[_Run]:
    """Return the runs at the front, as far as sizes are known."""
    found: list[_Run] = []
    i = j = 0
    while i < len(here) and j < len(there):
        run = _run(here, there, i, j)
        if run is None:
            break
        found.append(run)
        i, j = run[0][1], run[1][1]
    return found


def _run(here: Sequence[Dim], there: Sequence[Dim], i: int, j: int) -> _Run | None:
    a, b, left, right = i + 1, j + 1, here[i], there[j]
    while left != right:
        if not isinstance(left, int) or not isinstance(right, int):
            return None
        if left < right and a < len(here):
            left, a = multiply(left, here[a]), a + 1
        elif right < left and b < len(there):
            right, b = multiply(right, there[b]), b + 1
        else:
            return None
    return (i, a), (j, b)


def _numbers(dims: Sequence[Dim]) -> list[int] | None:
    numbers = [d for d in dims if isinstance(d, int)]
    return numbers if len(numbers) == len(dims) else None
