"""Where an axis goes as operators move, add, drop or cut others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from irtools.analysis.dims import Dim, multiply
from irtools.analysis.shapes import SymbolicShapes

__all__ = ["axis_after", "axis_before", "is_layout"]


def is_layout(node: ir.Node) -> bool:
    """Whether the rule of this file knows what a node does to axes."""
    return node.domain == "" and node.op_type in _RULES


def axis_after(node: ir.Node, axis: int, shapes: SymbolicShapes) -> int | None:
    """Return where an axis of the first input is in the outputs; None: it is cut, or not known."""
    return _RULES[node.op_type](node, axis, shapes)


def axis_before(node: ir.Node, axis: int, shapes: SymbolicShapes) -> int | None:
    """Return which axis of the first input becomes an axis of the outputs; None: none does."""
    rank = shapes.rank(node.inputs[0]) or 0
    return next((i for i in range(rank) if axis_after(node, i, shapes) == axis), None)


def _same(node: ir.Node, axis: int, shapes: SymbolicShapes) -> int | None:
    return axis


def _reshape(node: ir.Node, axis: int, shapes: SymbolicShapes) -> int | None:
    """The axis that is as long, with as many elements after it."""
    x, y = shapes.shape(node.inputs[0]), shapes.shape(node.outputs[0])
    if x is None or y is None:
        return None
    inner = _product(x[axis + 1 :])
    found = (i for i, n in enumerate(y) if n == x[axis] and _product(y[i + 1 :]) == inner)
    return next(found, None)


def _transpose(node: ir.Node, axis: int, shapes: SymbolicShapes) -> int | None:
    rank = shapes.rank(node.inputs[0])
    if rank is None:
        return None
    perm = list(node.attributes.get_ints("perm", tuple(reversed(range(rank)))))
    return perm.index(axis)


def _expand(node: ir.Node, axis: int, shapes: SymbolicShapes) -> int | None:
    x, y = shapes.shape(node.inputs[0]), shapes.shape(node.outputs[0])
    if x is None or y is None:
        return None
    found = axis + len(y) - len(x)
    return found if x[axis] == y[found] else None


def _slice(node: ir.Node, axis: int, shapes: SymbolicShapes) -> int | None:
    rank, axes = shapes.rank(node.inputs[0]), _integers(node, 3, shapes)
    if rank is None or axes is None or axis in [a % rank for a in axes]:
        return None
    return axis


def _split(node: ir.Node, axis: int, shapes: SymbolicShapes) -> int | None:
    rank = shapes.rank(node.inputs[0])
    if rank is None or node.attributes.get_int("axis", 0) % rank == axis:
        return None
    return axis


def _gather(node: ir.Node, axis: int, shapes: SymbolicShapes) -> int | None:
    """Gather of an activation along another axis."""
    rank, picked = (shapes.rank(value) for value in node.inputs)
    if rank is None or picked is None:
        return None
    along = node.attributes.get_int("axis", 0) % rank
    if along == axis:
        return None
    return axis + picked - 1 if along < axis else axis


def _squeeze(node: ir.Node, axis: int, shapes: SymbolicShapes) -> int | None:
    rank, axes = shapes.rank(node.inputs[0]), _integers(node, 1, shapes)
    if rank is None or axes is None:
        return None
    places = [a % rank for a in axes]
    return None if axis in places else axis - sum(a < axis for a in places)


def _unsqueeze(node: ir.Node, axis: int, shapes: SymbolicShapes) -> int | None:
    rank, axes = shapes.rank(node.outputs[0]), _integers(node, 1, shapes)
    if rank is None or axes is None:
        return None
    places = [a % rank for a in axes]
    return [i for i in range(rank) if i not in places][axis]


def _integers(node: ir.Node, position: int, shapes: SymbolicShapes) -> list[int] | None:
    value = node.inputs[position] if position < len(node.inputs) else None
    found = shapes.integers(value)
    if found is None or not all(isinstance(n, int) for n in np.ravel(found)):
        return None
    return [int(n) for n in np.ravel(found)]


def _product(dims: Sequence[Dim]) -> Dim:
    total: Dim = 1
    for dim in dims:
        total = multiply(total, dim)
    return total


_RULES: Mapping[str, Callable[[ir.Node, int, SymbolicShapes], int | None]] = MappingProxyType(
    {
        "Dropout": _same,
        "Expand": _expand,
        "Flatten": _reshape,
        "Gather": _gather,
        "Identity": _same,
        "Reshape": _reshape,
        "Slice": _slice,
        "Split": _split,
        "Squeeze": _squeeze,
        "Transpose": _transpose,
        "Unsqueeze": _unsqueeze,
    }
)
