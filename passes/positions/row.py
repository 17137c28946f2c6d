"""One row of a tensor, and what a rule says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import onnx_ir as ir

from irtools.analysis.shapes import Shape, SymbolicShapes

__all__ = ["Row", "Rule", "Sources", "broadcast_axis", "of_broadcast"]


@dataclass(frozen=True)
class Row:
    """One row of a tensor.

    Attributes:
        axis: Along which it is taken, from 0.
        index: Which one, from 0; from the end where it is negative.
    """

    axis: int
    index: int


Sources: TypeAlias = Mapping[int, int]
"""Input of a node to the axis along which one row of it is needed; others are needed whole."""

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
