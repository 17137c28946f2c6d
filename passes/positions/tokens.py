"""Which nodes compute each token by itself, and how their inputs belong to the tokens."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import onnx_ir as ir

from irtools.analysis.dims import Dim, multiply
from irtools.analysis.shapes import Shape, SymbolicShapes
from irtools.operators import Kind, find_op
from irtools.passes.positions.row import Row, Sources
from irtools.passes.positions.rules import ROWS

__all__ = ["Operand", "Operands", "is_joined", "is_of_tokens", "operands"]


class Operand(enum.Enum):
    """How an input belongs to the tokens."""

    TOKENS = "a row for each token: [B, S, ...], or [B S, ...]"
    POSITIONS = "a row for each position, the same for all texts: [1, S, ...] or [S, ...]"


Operands = Mapping[int, Operand]
"""Inputs of a node that belong to tokens; others are the same for all tokens."""


def is_of_tokens(shape: Shape | None, sizes: tuple[Dim, Dim]) -> bool:
    """Whether a tensor has a row for each token, and rows of a fixed size."""
    if shape is None:
        return False
    first = 1 if is_joined(shape, sizes) else 2
    if first == 2 and shape[:2] != sizes:
        return False
    return all(isinstance(size, int) for size in shape[first:])


def is_joined(shape: Shape, sizes: tuple[Dim, Dim]) -> bool:
    """Whether texts and positions are one axis."""
    return shape[:2] != sizes and bool(shape) and shape[0] == multiply(*sizes)


def operands(node: ir.Node, facts: SymbolicShapes, sizes: tuple[Dim, Dim]) -> Operands | None:
    """Return how inputs belong to the tokens, if each of them can be computed by itself."""
    read = [value for value in node.outputs if value.uses() or value.is_graph_output()]
    shapes = [facts.shape(value) for value in read]
    if not read or read[0] is not node.outputs[0]:
        return None
    if not all(is_of_tokens(shape, sizes) for shape in shapes):
        return None
    op = find_op(node.domain, node.op_type)
    if op is None or op.random or op.kind in (Kind.ATTENTION, Kind.CONTROL):
        return None
    joined = {is_joined(shape, sizes) for shape in shapes if shape is not None}
    if len(joined) > 1:
        return None
    found = _operands(node, joined.pop(), facts, sizes)
    return found if found and Operand.TOKENS in found.values() else None


def _operands(
    node: ir.Node, joined: bool, facts: SymbolicShapes, sizes: tuple[Dim, Dim]
) -> Operands | None:
    if node.domain == "" and node.op_type in ("Reshape", "Expand", "Flatten"):
        return _of_target(node, facts, sizes)
    rows = [_ask(node, axis, facts) for axis in range(1 if joined else 2)]
    found: dict[int, Operand] = {}
    for index, value in enumerate(node.inputs):
        axes = [None if row is None else row.get(index, -1) for row in rows]
        if None in axes or any(isinstance(axis, Row) for axis in axes):
            return None
        shape = facts.shape(value)
        if set(axes) == {-1}:
            continue
        own = axes == list(range(len(axes))) or (sizes[0] == 1 and axes == [-1, 1])
        if own and is_of_tokens(shape, sizes):
            found[index] = Operand.TOKENS
        elif not joined and axes[0] == -1 and _is_elementwise(node):
            found[index] = Operand.POSITIONS
        else:
            return None
    return found


def _of_target(node: ir.Node, facts: SymbolicShapes, sizes: tuple[Dim, Dim]) -> Operands | None:
    """Rows of tokens whose own shape changes, or whose two axes become one, or one two."""
    source, result = facts.shape(node.inputs[0]), facts.shape(node.outputs[0])
    if source is None or result is None or not is_of_tokens(source, sizes):
        return None
    if node.op_type == "Flatten" and not is_joined(result, sizes):
        return None
    if node.op_type == "Expand":
        if len(source) != len(result) or is_joined(source, sizes) != is_joined(result, sizes):
            return None
        return {0: Operand.TOKENS}
    return {0: Operand.TOKENS} if _row_size(source, sizes) == _row_size(result, sizes) else None


def _row_size(shape: Shape, sizes: tuple[Dim, Dim]) -> Dim:
    total: Dim = 1
    for size in shape[1 if is_joined(shape, sizes) else 2 :]:
        total = multiply(total, size)
    return total


def _ask(node: ir.Node, axis: int, facts: SymbolicShapes) -> Sources | None:
    rule = ROWS.of(node)
    try:
        return None if rule is None else rule(node, Row(axis, 0), facts)
    except (IndexError, ValueError):
        return None


def _is_elementwise(node: ir.Node) -> bool:
    op = find_op(node.domain, node.op_type)
    return op is not None and op.kind is Kind.ELEMENTWISE
