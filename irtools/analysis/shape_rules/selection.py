"""Results whose size depends on the values: the rank is known, and what stays."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from irtools.analysis.dims import Dim
from irtools.analysis.facts import Shape, ShapeFacts
from irtools.analysis.shape_rules.common import (
    input_at,
    int_attribute,
    number,
    unknown,
)

__all__ = [
    "arg_reduce",
    "compress",
    "non_max_suppression",
    "non_zero",
    "one_hot",
    "top_k",
    "unique",
]


def arg_reduce(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return [None]
    if not shape:
        return [()]
    axis = int_attribute(node, "axis", 0) % len(shape)
    kept: Shape = (1,) if int_attribute(node, "keepdims", 1) else ()
    return [shape[:axis] + kept + shape[axis + 1 :]]


def top_k(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    shape = facts.shape(node.inputs[0])
    if not shape:
        return [None, None]
    axis = int_attribute(node, "axis", -1) % len(shape)
    given = node.attributes.get("k")
    count: Dim | None = number(input_at(node, 1), facts) if given is None else given.as_int()
    size = unknown(node, axis) if count is None else count
    found = (*shape[:axis], size, *shape[axis + 1 :])
    return [found, found]


def one_hot(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return [None]
    axis = int_attribute(node, "axis", -1) % (len(shape) + 1)
    depth = number(input_at(node, 1), facts)
    size = unknown(node, axis) if depth is None else depth
    return [(*shape[:axis], size, *shape[axis:])]


def non_zero(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """Indices [rank, found]."""
    rank = facts.rank(node.inputs[0])
    # Of a scalar the standard says [0, found], as numpy does; runtimes give [1, found].
    return [(rank if rank else unknown(node, 0), unknown(node, 1))]


def compress(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    shape = facts.shape(node.inputs[0])
    if "axis" not in node.attributes:
        return [(unknown(node, 0),)]
    if shape is None:
        return [None]
    axis = int_attribute(node, "axis", 0) % len(shape)
    return [(*shape[:axis], unknown(node, axis), *shape[axis + 1 :])]


def unique(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """Y, and three vectors: first places, where each element went, counts."""
    shape = facts.shape(node.inputs[0])
    found = unknown(node, 0)
    vectors: list[Shape] = [(found,), (unknown(node, 0, min(2, len(node.outputs) - 1)),), (found,)]
    if "axis" not in node.attributes:
        return [(found,), *vectors]
    if shape is None:
        return [None, *vectors]
    axis = int_attribute(node, "axis", 0) % len(shape)
    vectors[1] = (shape[axis],)
    return [(*shape[:axis], found, *shape[axis + 1 :]), *vectors]


def non_max_suppression(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """[found, (batch, class, box)]."""
    return [(unknown(node, 0), 3)]
