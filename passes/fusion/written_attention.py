"""Attention operators that an exporter wrote, in a form that no runtime likes best."""

from __future__ import annotations

import math

import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.analysis.types import element_type
from irtools.editing import require
from irtools.passes.fusion.attention_match import (
    AddedMask,
    AttentionMatch,
    BooleanMask,
    Mask,
    require_same_batch,
    shape_of_masks,
    value_of,
)
from irtools.passes.fusion.operand import find_operand
from irtools.passes.fusion.packed import find_packed

__all__ = ["match_written"]

_KEPT = frozenset({"is_causal", "qk_matmul_output_mode", "scale", "softcap"})


def match_written(node: ir.Node, facts: SymbolicShapes) -> AttentionMatch:
    """Match an Attention operator whose heads are repeated or taken apart for it, or whose mask
    is left to be broadcast over queries or keys.

    Raises:
        Veto: There is nothing to improve.
    """
    inputs = [*node.inputs, None, None, None][:6]
    plain = len(node.outputs) == 1 or not any(o.uses() for o in node.outputs[1:])
    plain = plain and inputs[4] is None and inputs[5] is None and set(node.attributes) <= _KEPT
    plain = plain and node.attributes.get_float("softcap", 0.0) == 0.0
    require(plain and facts.rank(inputs[0]) == 4, "has a cache or packed heads", named=False)
    q, k, v = (find_operand(x, facts, n) for x, n in zip(inputs[:3], "QKV", strict=True))
    require(v.factor == 1.0, "V is scaled", named=False)
    require_same_batch(q, k, v)
    scores = (*q.shape[:3], k.shape[2])
    masks: tuple[Mask, ...] = ()
    if inputs[3] is not None:
        is_bool = element_type(inputs[3]) == ir.DataType.BOOL
        masks = (BooleanMask(inputs[3]) if is_bool else AddedMask(inputs[3]),)
    mask_shape = shape_of_masks(masks, facts, scores)
    output = node.outputs[0]
    flat = find_packed(q, k, v, output, [value_of(mask) for mask in masks], facts)
    width = q.shape[3]
    require(isinstance(width, int) or "scale" in node.attributes, "no scale", named=False)
    default = 1 / math.sqrt(width) if isinstance(width, int) else 1.0
    scale = node.attributes.get_float("scale", default) * q.factor * k.factor
    pairs = zip(mask_shape[-2:], scores[-2:], strict=False)
    broadcasts = any(m == 1 and s != 1 for m, s in pairs)
    repeated = any(
        facts.shape(given) != operand.shape for given, operand in ((inputs[1], k), (inputs[2], v))
    )
    improves = flat is not None or repeated or broadcasts
    require(improves, "nothing to improve", named=False)
    causal = bool(node.attributes.get_int("is_causal", 0))
    return AttentionMatch(node, q, k, v, scale, masks, mask_shape, output, flat, causal)
