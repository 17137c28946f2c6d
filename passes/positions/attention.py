"""Attention: every row of queries is answered alone, by all keys and values."""

from __future__ import annotations

import onnx_ir as ir

from irtools.analysis.shapes import Shape, SymbolicShapes
from irtools.passes.positions.row import Row, Sources

__all__ = ["attention", "multi_head_attention", "rotary"]


def attention(node: ir.Node, row: Row, facts: SymbolicShapes) -> Sources | None:
    """ai.onnx Attention: the row of Q and of the mask; all of K and V.

    Under a causal mask the last row alone sees all keys, and then needs no mask.
    """
    query, result = facts.shape(node.inputs[0]), facts.shape(node.outputs[0])
    if query is None or result is None or _is_read(node, 3) or row.period is not None:
        return None
    if len(query) != len(result) or row.axis != _positions(result):
        return None
    if node.attributes.get_int("is_causal", 0) and not _sees_all(node, row, facts):
        return None
    bias = _bias_axis(facts, _input(node, 3), query[row.axis])
    return None if bias is None else {0: row.axis, **({3: bias} if bias >= 0 else {})}


def multi_head_attention(node: ir.Node, row: Row, facts: SymbolicShapes) -> Sources | None:
    """com.microsoft MultiHeadAttention with separate Q, K and V; the bias [B, heads, S, T]."""
    query, key = facts.shape(node.inputs[0]), _input(node, 1)
    if query is None or len(query) != 3 or row.axis != 1 or key is None or _is_read(node, 3):
        return None
    if (
        node.attributes.get_int("unidirectional", 0)
        or len(node.inputs) > 8
        or row.period is not None
    ):
        return None
    found = {0: 1}
    padding = _input(node, 4)
    if padding is not None:
        rank = facts.rank(padding)
        if rank not in (1, 2, 3):
            return None
        found |= {4: 1} if rank == 3 else {}
    bias = _bias_axis(facts, _input(node, 5), query[1])
    if bias is None:
        return None
    return found | ({5: bias} if bias >= 0 else {})


def rotary(node: ir.Node, row: Row, facts: SymbolicShapes) -> Sources | None:
    """ai.onnx RotaryEmbedding: the row, and its angles or its position."""
    shape = facts.shape(node.inputs[0])
    if shape is None or row.axis != _positions(shape) or row.period is not None:
        return None
    places = _input(node, 3)
    angles = [places] if places is not None else list(node.inputs[1:3])
    for value in angles:
        found = facts.shape(value)
        if found is None or len(found) < 2 or found[1] != shape[row.axis]:
            return None
    return {0: row.axis, **({3: 1} if places is not None else {1: 1, 2: 1})}


def _positions(shape: Shape) -> int | None:
    """Return the axis of positions of [B, heads, S, D] or [B, S, heads * D]."""
    return {4: 2, 3: 1}.get(len(shape))


def _sees_all(node: ir.Node, row: Row, facts: SymbolicShapes) -> bool:
    """Whether the causal mask hides no key from a row: the last one, as many keys as queries."""
    query, key = facts.shape(node.inputs[0]), facts.shape(node.inputs[1])
    if query is None or key is None or _input(node, 4) is not None or _input(node, 6) is not None:
        return False
    length, keys = query[row.axis], _positions(key)
    if keys is None or key[keys] != length:
        return False
    return row.index == -1 or (isinstance(length, int) and row.index == length - 1)


def _bias_axis(facts: SymbolicShapes, bias: ir.Value | None, length: object) -> int | None:
    """Return the axis of queries of a mask [.., S, T]; -1 where it is the same for all."""
    if bias is None:
        return -1
    shape = facts.shape(bias)
    if shape is None or len(shape) < 2:
        return None
    if shape[-2] == 1:
        return -1
    return len(shape) - 2 if shape[-2] == length else None


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _is_read(node: ir.Node, index: int) -> bool:
    if index >= len(node.outputs):
        return False
    output = node.outputs[index]
    return bool(output.uses()) or output.is_graph_output()
