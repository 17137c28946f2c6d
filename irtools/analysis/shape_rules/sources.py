"""Tensors made of sizes and attributes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from irtools.analysis.dims import add
from irtools.analysis.facts import Shape, ShapeFacts
from irtools.analysis.shape_rules.common import (
    int_attribute,
    ints_attribute,
    numbers,
    unknown,
    unknown_shape,
)

__all__ = ["by_attribute", "constant", "constant_of_shape", "range_rule", "shape_vector", "samples"]


def shape_vector(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    found = facts.rank(node.inputs[0])
    if found is None:
        return [(unknown(node, 0),)]
    start, end = int_attribute(node, "start", 0), int_attribute(node, "end", found)
    return [(len(range(found)[start:end]),)]


def constant_of_shape(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    dims = numbers(node.inputs[0], facts)
    if dims is not None:
        return [dims]
    length = facts.shape(node.inputs[0])
    rank = length[0] if length else None
    return [unknown_shape(node, rank) if isinstance(rank, int) else None]


def range_rule(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    start, limit, delta = (facts.integers(value) for value in node.inputs)
    if start is None or limit is None or delta is None:
        return [(unknown(node, 0),)]
    a, b, d = start.item(), limit.item(), delta.item()
    if all(isinstance(x, int) for x in (a, b, d)) and d:
        return [(max(0, math.ceil((b - a) / d)),)]
    if d == 1:
        return [(add(b, a, -1),)]
    return [(add(a, b, -1) if d == -1 else unknown(node, 0),)]


def constant(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """Numbers are known as constants; strings and sparse tensors are not."""
    for name, attribute in node.attributes.items():
        if attribute.is_ref():
            break
        if name in ("value_string", "value_int", "value_float"):
            return [()]
        if name.startswith("value_"):
            return [(len(attribute.value),)]
        if name == "value":
            return [tuple(attribute.as_tensor().shape.numpy())]
    return [None]


def by_attribute(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """RandomNormal and RandomUniform."""
    return [ints_attribute(node, "shape")]


def samples(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """Multinomial: [B, classes] -> [B, samples]."""
    shape = facts.shape(node.inputs[0])
    rows = unknown(node, 0) if not shape else shape[0]
    return [(rows, int_attribute(node, "sample_size", 1))]
