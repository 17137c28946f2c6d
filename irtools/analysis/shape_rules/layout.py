"""Other axes, other sizes, the same elements."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from irtools.analysis.dims import Dim, divide, multiply
from irtools.analysis.facts import Shape, ShapeFacts
from irtools.analysis.shape_rules.common import (
    axes_of,
    broadcast,
    int_attribute,
    ints_attribute,
    product,
    unknown,
    unknown_shape,
)

__all__ = ["expand", "flatten", "reshape", "squeeze", "tile", "transpose", "unsqueeze"]


def transpose(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    shape = facts.shape(node.inputs[0])
    perm = ints_attribute(node, "perm")
    if shape is None:
        return [None if perm is None else unknown_shape(node, len(perm))]
    return [shape[::-1] if perm is None else tuple(shape[axis] for axis in perm)]


def reshape(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    target = facts.integers(node.inputs[1]) if len(node.inputs) > 1 else None
    shape = facts.shape(node.inputs[0])
    if target is None or target.ndim != 1:
        length = facts.shape(node.inputs[1]) if len(node.inputs) > 1 else None
        if length and isinstance(length[0], int):
            return [unknown_shape(node, length[0])]
        return [None]
    dims: list[Dim] = list(target)
    if not int_attribute(node, "allowzero", 0):
        for axis, dim in enumerate(dims):
            if dim == 0:
                copied = shape is not None and axis < len(shape)
                dims[axis] = shape[axis] if shape and copied else unknown(node, axis)
    if -1 in dims:
        axis = dims.index(-1)
        dims[axis] = _remaining(shape, dims[:axis] + dims[axis + 1 :]) or unknown(node, axis)
    return [tuple(dims)]


def _remaining(shape: Shape | None, others: Sequence[Dim]) -> Dim | None:
    if shape is None:
        return None
    return divide(product(shape), product(others))


def expand(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    shape, target = facts.shape(node.inputs[0]), facts.integers(node.inputs[1])
    if shape is None or target is None:
        length = facts.shape(node.inputs[1])
        if shape is not None and length and isinstance(length[0], int):
            rank = max(length[0], len(shape))
            return [unknown_shape(node, rank)]
        return [None]
    return [broadcast([shape, tuple(target)])]


def unsqueeze(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    shape, axes = facts.shape(node.inputs[0]), axes_of(node, facts)
    if shape is None or axes is None:
        return [None]
    rank = len(shape) + len(axes)
    added = {axis % rank for axis in axes}
    rest = iter(shape)
    return [tuple(1 if axis in added else next(rest) for axis in range(rank))]


def squeeze(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    shape, axes = facts.shape(node.inputs[0]), axes_of(node, facts)
    if shape is None or axes is None:
        return [None]
    if not axes:
        # Only what is 1 at run time goes.
        return [tuple(d for d in shape if d != 1) if _are_numbers(shape) else None]
    dropped = {axis % len(shape) for axis in axes}
    return [tuple(dim for axis, dim in enumerate(shape) if axis not in dropped)]


def _are_numbers(shape: Shape) -> bool:
    return all(isinstance(dim, int) for dim in shape)


def flatten(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return [None]
    axis = int_attribute(node, "axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return [(product(shape[:axis]), product(shape[axis:]))]


def tile(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    shape, times = facts.shape(node.inputs[0]), facts.integers(node.inputs[1])
    if shape is None:
        return [None]
    if times is None or len(times) != len(shape):
        return [unknown_shape(node, len(shape))]
    return [tuple(multiply(size, n) for size, n in zip(shape, times, strict=True))]
