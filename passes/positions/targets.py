"""Reshape and Expand: where a row lies on the other side, and the size to ask for then."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from irtools.analysis.dims import Dim, divide, multiply
from irtools.analysis.shapes import Shape, SymbolicShapes
from irtools.passes.positions.row import Row, Sources, broadcast_axis

__all__ = ["expand", "new_target", "reshape"]


def reshape(node: ir.Node, row: Row, facts: SymbolicShapes) -> Sources | None:
    """The axis whose rows stay whole rows: as long, with as much before it and after it.

    Batch and positions may become one axis, or come from one (Linear layers written as Gemm).
    """
    source, result = facts.shape(node.inputs[0]), facts.shape(node.outputs[0])
    if source is None or result is None or new_target(node, row, facts) is None:
        return None
    found = _source(source, result, row)
    return None if found is None else {0: found}


def expand(node: ir.Node, row: Row, facts: SymbolicShapes) -> Sources | None:
    """One row is widened as all are."""
    source, result = facts.shape(node.inputs[0]), facts.shape(node.outputs[0])
    axis = broadcast_axis(source, result, row.axis)
    if axis is None or row.period is not None or new_target(node, row, facts) is None:
        return None
    return {0: axis} if axis >= 0 else {}


def new_target(node: ir.Node, row: Row, facts: SymbolicShapes) -> list[int] | None:
    """Return the constant target that makes one row alone; None where there is none.

    Sizes that are only known when the model runs are copied from the input: 0 in a Reshape, 1 in an
    Expand; one of a Reshape may follow from the others, -1.
    """
    source, result = facts.shape(node.inputs[0]), facts.shape(node.outputs[0])
    if source is None or result is None:
        return None
    if node.op_type == "Expand":
        return _wide(source, result, row.axis)
    return _cut(source, result, row)


def _source(source: Shape, result: Shape, row: Row) -> Row | None:
    """Return the row of what is reshaped."""
    axis = _same_axis(source, result, row.axis)
    if axis is not None:
        return Row(axis, row.index, row.period)
    upto, after = _product(result[: row.axis + 1]), _product(result[row.axis + 1 :])
    for place, size in enumerate(source):
        if _product(source[: place + 1]) != upto or _product(source[place + 1 :]) != after:
            continue
        if row.period is None:
            begins = [_product(result[:axis]) for axis in range(row.axis)]
            joins = _product(source[:place]) in begins
            return Row(place, row.index, result[row.axis]) if joins else None
        return Row(place, row.index) if size == row.period else None
    return None


def _cut(source: Shape, result: Shape, row: Row) -> list[int] | None:
    kept, target = _source(source, result, row), []
    for place, size in enumerate(result):
        if place == row.axis:
            left = 1 if row.period is None else divide(size, row.period)
            if left is None:
                return None
            target.append(left if isinstance(left, int) else -1)
        elif isinstance(size, int):
            target.append(size)
        elif kept is not None and _is_copied(source, size, place, kept.axis):
            target.append(0)
        else:
            target.append(-1)
    fixed = 0 in [size for size in result if isinstance(size, int)]
    return None if kept is None or fixed or target.count(-1) > 1 else target


def _is_copied(source: Shape, size: Dim, place: int, row: int) -> bool:
    return place != row and place < len(source) and source[place] == size


def _wide(source: Shape, result: Shape, axis: int) -> list[int] | None:
    target: list[int] = []
    for place, size in enumerate(result):
        if place == axis:
            target.append(1)
        elif isinstance(size, int):
            target.append(size)
        elif _is_kept(source, result, place):
            target.append(1)
        else:
            return None
    return target


def _is_kept(source: Shape, result: Shape, place: int) -> bool:
    own = place - (len(result) - len(source))
    return own >= 0 and source[own] == result[place]


def _same_axis(source: Shape, result: Shape, axis: int) -> int | None:
    before, after = _product(result[:axis]), _product(result[axis + 1 :])
    for place, size in enumerate(source):
        if size != result[axis] or _product(source[:place]) != before:
            continue
        if _product(source[place + 1 :]) == after:
            return place
    return None


def _product(sizes: Sequence[Dim]) -> Dim:
    total: Dim = 1
    for size in sizes:
        total = multiply(total, size)
    return total
