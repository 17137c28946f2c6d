"""Axes that are reduced."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from irtools.analysis.facts import Shape, ShapeFacts
from irtools.analysis.shape_rules.common import axes_of, int_attribute, unknown_shape

__all__ = ["cross_entropy", "negative_log_likelihood", "reduce"]


def reduce(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """Without axes all are reduced, or none where `noop_with_empty_axes` says so."""
    shape, axes = facts.shape(node.inputs[0]), axes_of(node, facts)
    if shape is None:
        return [None]
    keep = bool(int_attribute(node, "keepdims", 1))
    if axes is None:
        return [unknown_shape(node, len(shape)) if keep else None]
    if not axes and int_attribute(node, "noop_with_empty_axes", 0):
        return [shape]
    reduced = {axis % len(shape) for axis in axes} if axes else set(range(len(shape)))
    if keep:
        return [tuple(1 if axis in reduced else dim for axis, dim in enumerate(shape))]
    return [tuple(dim for axis, dim in enumerate(shape) if axis not in reduced)]


def negative_log_likelihood(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """The loss of each target, or one number."""
    if node.attributes.get_string("reduction", "mean") == "none":
        return [facts.shape(node.inputs[1])]
    return [()]


def cross_entropy(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """The loss, and the logarithms of the probabilities."""
    return [*negative_log_likelihood(node, facts), facts.shape(node.inputs[0])]
