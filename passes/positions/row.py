"""One row of a tensor, and what a rule says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import onnx_ir as ir

from irtools.analysis.dims import Dim
from irtools.analysis.shapes import Shape, SymbolicShapes

__all__ = ["Row", "Rule", "Sources", "broadcast_axis", "of_broadcast"]


@dataclass(frozen=True)
class Row:
    """One row of a tensor; of an axis into which others are written as well, one of each.

    Attributes:
        axis: Along which it is taken, from 0.
        index: Which one, from 0; from the end where it is negative.
        period: How many rows there are of each, where batch and positions are one axis.
    """

    axis: int
    index: int
    period: Dim | None = None


Sources: TypeAlias = Mapping[int, int | Row]
"""Input of a node to the row that is needed of it, or the axis of the same; others whole."""

Rule: TypeAlias = Callable[[ir.Node, Row, SymbolicShapes], Sources | None]
"""Answers for one row of a node's results; None: the row cannot be computed alone."""


def broadcast_axis(source: Shape | None, result: Shape | None, axis: int) -> int | None:
    """Return the axis of a broadcast input that becomes `axis` of the result; -1: none does.

    None where it is not known which.
    """
    if source is None or result is None:
        return None
    own = axis - (len(result) - len(source))
    if own < 0 or source[own] == 1:
        return -1
    return own if source[own] == result[axis] else None


def of_broadcast(
    node: ir.Node, inputs: Iterable[int], row: Row, facts: SymbolicShapes
) -> dict[int, int] | None:
    """Return what inputs that broadcast to the first result contribute to a row of it."""
    result, found = facts.shape(node.outputs[0]), {}
    for index in inputs:
        if (value := node.inputs[index]) is None:
            continue
        axis = broadcast_axis(facts.shape(value), result, row.axis)
        if axis is None:
            return None
        if axis >= 0:
            found[index] = axis
    return found
