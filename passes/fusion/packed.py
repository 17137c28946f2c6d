"""Attention blocks whose heads need not be taken apart, with and without a cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from irtools.analysis.dims import Dim, multiply
from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import Veto, only_user, producer_of
from irtools.passes.fusion.operand import HEADS_FIRST, HEADS_SECOND, Operand, find_operand

__all__ = ["Cache", "Packed", "find_packed"]


@dataclass(frozen=True)
class Cache:
    """K and V of earlier tokens, [B,G,P,D], and the tensors that they are joined to, [B,G,T,D]."""

    past_key: ir.Value
    past_value: ir.Value
    present_key: ir.Value
    present_value: ir.Value


@dataclass(frozen=True)
class Packed:
    """Q, K, V and Y as the linear layers have them: [B,S,H*D], heads not yet taken apart.

    Attributes:
        k: Of new tokens alone where there is a cache; so is `v`.
        rows: H*D where the output is [B*S,H*D], as a Gemm reads it; else None.
    """

    q: ir.Value
    k: ir.Value
    v: ir.Value
    output: ir.Value
    heads: int
    kv_heads: int
    cache: Cache | None = None
    rows: int | None = None


def find_packed(
    q: Operand,
    k: Operand,
    v: Operand,
    output: ir.Value,
    masks: Sequence[ir.Value],
    facts: SymbolicShapes,
) -> Packed | None:
    """Return the block without the reshapes around it, or None where it has none."""
    heads, kv_heads = q.shape[1], k.shape[1]
    merged = _merged(q, v, output, facts)
    if not isinstance(heads, int) or not isinstance(kv_heads, int) or merged is None:
        return None
    cache = None
    joins = [_join(x) for x in (k, v)]
    if all(joins):
        key, value = (join for join in joins if join is not None)
        if _depends_on([q.base, *masks], {key, value}):
            return None
        pasts = [join.inputs[0] for join in (key, value)]
        new = [_new(join, facts) for join in (key, value)]
        if any(x is None for x in (*pasts, *new)):
            return None
        (past_key, past_value), (k, v) = pasts, new  # type: ignore[assignment]
        assert past_key is not None and past_value is not None
        cache = Cache(past_key, past_value, key.outputs[0], value.outputs[0])
    flats = [_flat(x, facts) for x in (q, k, v)]
    if any(x is None for x in flats):
        return None
    flat_q, flat_k, flat_v = (x for x in flats if x is not None)
    found = facts.shape(merged)
    assert found is not None
    rows = found[1] if len(found) == 2 and isinstance(found[1], int) else None
    return Packed(flat_q, flat_k, flat_v, merged, heads, kv_heads, cache, rows)


def _merged(q: Operand, v: Operand, output: ir.Value, facts: SymbolicShapes) -> ir.Value | None:
    """[B,S,H*E] or [B*S,H*E] that the output is transposed and reshaped to."""
    transpose = only_user(output)
    if transpose is None or transpose.op_type != "Transpose":
        return None
    if tuple(transpose.attributes.get_ints("perm") or ()) != HEADS_SECOND:
        return None
    reshape = only_user(transpose.outputs[0])
    if reshape is None or reshape.op_type != "Reshape" or reshape.domain != "":
        return None
    width = multiply(q.shape[1], v.shape[3])
    merged: list[tuple[Dim, ...]] = [(q.shape[0], q.shape[2], width)]
    if isinstance(width, int):
        merged.append((multiply(q.shape[0], q.shape[2]), width))
    return reshape.outputs[0] if facts.shape(reshape.outputs[0]) in merged else None


def _join(x: Operand) -> ir.Node | None:
    """The Concat of a cache and new tokens."""
    join = producer_of(x.base, "Concat")
    if join is None or x.perm != HEADS_FIRST or len(join.inputs) != 2:
        return None
    return join if join.attributes.get_int("axis", 0) in (2, -2) else None


def _new(join: ir.Node, facts: SymbolicShapes) -> Operand | None:
    try:
        found = find_operand(join.inputs[1], facts, "K")
    except Veto:
        return None
    return found if found.factor == 1.0 else None


def _flat(operand: Operand, facts: SymbolicShapes) -> ir.Value | None:
    """[B,S,H*D] that an operand was reshaped from."""
    reshape = producer_of(operand.base, "Reshape")
    if reshape is None or operand.perm != HEADS_SECOND:
        return None
    batch, heads, length, width = operand.shape
    source = reshape.inputs[0]
    return source if facts.shape(source) == (batch, length, multiply(heads, width)) else None


def _depends_on(values: Sequence[ir.Value], nodes: set[ir.Node]) -> bool:
    """Whether any value is computed from what one of the nodes makes."""
    pending, seen = list(values), set[ir.Node]()
    while pending:
        node = pending.pop().producer()
        if node is None or node in seen:
            continue
        if node in nodes:
            return True
        seen.add(node)
        pending += [value for value in node.inputs if value is not None]
    return False
