"""Shapes that stay, and shapes that broadcast."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from irtools.analysis.facts import Shape, ShapeFacts
from irtools.analysis.shape_rules.common import Rule, broadcast, input_at, int_attribute

__all__ = ["batch_norm", "binary", "elementwise", "layer_norm", "quantized", "same", "same_all"]


def same(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    return [facts.shape(node.inputs[0])]


def elementwise(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    shapes = [facts.shape(value) for value in node.inputs]
    known = [s for s in shapes if s is not None]
    return [broadcast(known) if len(known) == len(shapes) else None]


def same_all(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """Dropout: the mask has the shape of the data."""
    return [facts.shape(node.inputs[0])] * len(node.outputs)


def layer_norm(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """Mean and deviation keep the axes before `axis`; a sum with what was skipped is whole."""
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return [None] * len(node.outputs)
    kept = int_attribute(node, "axis", -1) % max(len(shape), 1)
    narrow: Shape = shape[:kept] + (1,) * (len(shape) - kept)
    return [shape, narrow, narrow, shape][: len(node.outputs)]


def batch_norm(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """Running mean and variance have one element per channel."""
    return [facts.shape(node.inputs[0])] + [facts.shape(v) for v in node.inputs[3:5]]


def quantized(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """DynamicQuantizeLinear: the scale and the zero point are scalars."""
    return [facts.shape(node.inputs[0]), (), ()]


def binary(first: int, second: int) -> Rule:
    """Two inputs that broadcast, with their scales in between."""

    def rule(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
        a, b = facts.shape(input_at(node, first)), facts.shape(input_at(node, second))
        return [None if a is None or b is None else broadcast([a, b])]

    return rule
