"""Products of matrices and attention."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from irtools.analysis.dims import add, divide, multiply
from irtools.analysis.facts import Shape, ShapeFacts
from irtools.analysis.shape_rules.common import (
    broadcast,
    input_at,
    int_attribute,
    ints_attribute,
    unknown,
)
from irtools.operators import weight_port

__all__ = ["attention", "gemm", "head_attention", "matmul", "matmul_n_bits", "packed_attention"]


def matmul(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """[..., M, K] x [..., K, N]; `transA` and `transB` of fused forms swap the last two axes."""
    a, b = facts.shape(node.inputs[0]), facts.shape(input_at(node, _weight(node)))
    if not a or not b:
        return [None]
    if int_attribute(node, "transA", 0) and len(a) > 1:
        a = (*a[:-2], a[-1], a[-2])
    if int_attribute(node, "transB", 0) and len(b) > 1:
        b = (*b[:-2], b[-1], b[-2])
    rows = a[-2:-1]
    columns = b[-1:] if len(b) > 1 else ()
    return [broadcast([a[:-2], b[:-2]]) + rows + columns]


def matmul_n_bits(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """[..., K] x [K, N]; N is an attribute."""
    a = facts.shape(node.inputs[0])
    return [(*a[:-1], int_attribute(node, "N", 0)) if a else None]


def _weight(node: ir.Node) -> int:
    port = weight_port(node)
    return 1 if port is None else port.input


def gemm(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    a, b = facts.shape(node.inputs[0]), facts.shape(input_at(node, _weight(node)))
    if a is None or b is None or len(a) != 2 or len(b) != 2:
        return [None]
    rows = a[1 if int_attribute(node, "transA", 0) else 0]
    columns = b[0 if int_attribute(node, "transB", 0) else 1]
    return [(rows, columns)]


def attention(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """Q [B, H, S, D] or [B, S, H*D] -> Y alike; present key and value [B, H, T, D]; scores."""
    q, k, v = (facts.shape(value) for value in node.inputs[:3])
    if q is None or k is None or v is None or not len(q) == len(k) == len(v):
        return [None] * len(node.outputs)
    if len(q) == 4:
        heads, kv_heads = q[1], k[1]
        sizes = [k[3], v[3]]
        y: Shape = (*q[:3], v[3])
        new, queries = k[2], q[2]
    else:
        heads, kv_heads = (int_attribute(node, f"{s}_num_heads", 1) for s in ("q", "kv"))
        width = divide(multiply(v[-1], heads), kv_heads) or unknown(node, 2)
        y, new, queries = (*q[:2], width), k[1], q[1]
        parts = (divide(s[-1], kv_heads) for s in (k, v))
        open_size = unknown(node, 3, len(node.outputs) - 1)
        sizes = [open_size if part is None else part for part in parts]
    past = facts.shape(input_at(node, 4))
    total = new if past is None else add(past[2], new)
    present = [(q[0], kv_heads, total, size) for size in sizes]
    return [y, *present, (q[0], heads, queries, total)][: len(node.outputs)]


def packed_attention(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """ONNX Runtime's Attention: input [B, S, I], weights [I, 3 * H] -> [B, S, H]."""
    x, w = facts.shape(node.inputs[0]), facts.shape(input_at(node, 1))
    sizes = ints_attribute(node, "qkv_hidden_sizes")
    if x is None or (w is None and sizes is None):
        return [None]
    width = sizes[-1] if sizes else divide(w[-1], 3) if w else None
    return [(*x[:-1], unknown(node, len(x) - 1) if width is None else width)]


def head_attention(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """MultiHeadAttention and GroupQueryAttention: Q [B, S, H*D], V [B, T, ...] -> [B, S, ...]."""
    q, v = facts.shape(node.inputs[0]), facts.shape(input_at(node, 2))
    if q is None or len(q) != 3 or v is None:
        return [None]  # Packed.
    if node.op_type == "GroupQueryAttention":
        return [q]
    heads = v[1] if len(v) == 4 else 1
    return [(*q[:2], multiply(heads, v[-1]))]
