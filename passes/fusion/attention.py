"""Attention blocks as one operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irtools.analysis.types import element_type
from irtools.editing import Editor, Place, require
from irtools.passes.fusion.attention_match import AttentionMatch, match_attention
from irtools.passes.fusion.base import Fusion, FusionPass, FusionRule
from irtools.passes.fusion.mask import build_mask
from irtools.passes.fusion.operand import HEADS_FIRST, Operand
from irtools.passes.fusion.packed import Packed
from irtools.passes.fusion.written_attention import match_written

__all__ = ["FuseAttention"]

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


class _Attention(FusionRule[AttentionMatch]):
    anchors = ("Softmax", "Attention")

    def find(self, anchor: ir.Node) -> AttentionMatch:
        written = anchor.op_type == "Attention"
        find = match_written if written else match_attention
        found = find(anchor, self.facts)
        known = _type_of(found) in _FLOATS
        require(known, "Q is not known to be float32 or float16", named=not written)
        return found

    def build(self, editor: Editor, anchor: ir.Node, found: AttentionMatch) -> None:
        packed, dtype = found.packed, _type_of(found)
        old = found.output if packed is None else packed.output
        last = old.producer()
        assert last is not None and dtype is not None
        mask = build_mask(Place(editor, anchor, before=last), found, dtype)
        make = Place(editor, anchor, before=last, replaces=_replaced(found, last))
        attributes: dict[str, object] = {"scale": found.scale}
        if found.causal:
            attributes["is_causal"] = 1
        if packed is None:
            inputs = [_heads_first(x, make) for x in (found.q, found.k, found.v)]
        else:
            inputs = [packed.q, packed.k, packed.v]
            attributes["q_num_heads"] = packed.heads
            attributes["kv_num_heads"] = packed.kv_heads
        cache = None if packed is None else packed.cache
        if cache is None:
            (fused,) = make.node(
                "Attention", [*inputs, *([] if mask is None else [mask])], attributes
            )
            editor.substitute(old, _as_rows(fused, old, packed, make))
            editor.drop_unread(last)
            return
        inputs_too = [mask, cache.past_key, cache.past_value]
        fused, key, value = make.node("Attention", [*inputs, *inputs_too], attributes, outputs=3)
        result = _as_rows(fused, old, packed, make)
        pairs = ((old, result), (cache.present_key, key), (cache.present_value, value))
        dead = [joined.producer() for joined, _ in pairs]
        for joined, present in pairs:
            editor.substitute(joined, present)
        editor.drop_unread(*dead)


def _as_rows(fused: ir.Value, old: ir.Value, packed: Packed | None, make: Place) -> ir.Value:
    """Return the output of attention in the shape of the one that it replaces."""
    if packed is None or packed.rows is None:
        return fused
    fused.type = old.type
    return make.value("Reshape", [fused, make.constant(np.array([-1, packed.rows], np.int64))])


def _heads_first(x: Operand, make: Place) -> ir.Value:
    if x.perm == HEADS_FIRST:
        return x.base
    return make.value("Transpose", [x.base], {"perm": list(x.perm)})


@dataclass(frozen=True)
class FuseAttention(FusionPass):
    """Turn attention blocks into the standard operator Attention (opset 23).

        softmax(s * Q K^T + M) V  ->  Attention(Q, K, V, M; scale=s)

    Found from each Softmax: the scale on the scores, on Q, or as its root on both Q and K; K
    transposed in one step or several; batch and heads as one axis or two; any number of masks
    and position biases, added or chosen by Where, in any shape that broadcasts; torch's NaN
    guard (Softmax, IsNaN, Where) with or without. K and V that are repeated for groups of
    queries go in as they are, not repeated. Q, K and V go in as [batch, length, heads * width]
    where the linear layers give them so, which also removes the reshapes around, else as
    [batch, heads, length, width]; then a cache that K and V are joined to goes in as past and
    comes out as present. Attention operators that an exporter wrote around repeated
    heads, reshapes, or with a mask that they would have to broadcast are rewritten to this form.

    Rows masked throughout keep their meaning: 0 under the guard; the mean of V under a mask of
    the lowest finite number, which runtimes take for "masked" and which is therefore halved.
    Without the guard a row masked throughout by -inf was NaN and is 0 afterwards.

    Shapes must prove that Q, K and V agree and that the mask does not widen the scores. What
    was not fused is counted, with the reason. Raises the opset to 23. Main graph and nested
    subgraphs.
    """

    name: ClassVar[str] = "fuse-attention"
    fusion: ClassVar[Fusion] = Fusion("attention", "attention blocks", "Attention", 23, _Attention)


def _type_of(found: AttentionMatch) -> ir.DataType | None:
    return element_type(found.q.base)


def _replaced(found: AttentionMatch, last: ir.Node) -> tuple[ir.Node, ...]:
    product = found.output.producer()
    scores = found.anchor.inputs[0]
    makers = [None if scores is None else scores.producer(), found.anchor, product, last]
    return tuple(dict.fromkeys(node for node in makers if node is not None))
