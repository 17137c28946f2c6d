"""Attention blocks as one operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.analysis.types import element_type
from irtools.model import FreshNames
from irtools.passes.fusion._driver import Fusion, FusionPass, Rewriter
from irtools.passes.fusion._mask import MaskBuilder
from irtools.passes.fusion._operand import HEADS_FIRST, Operand
from irtools.passes.fusion._pattern import Source, make_node, remove_dead, require
from irtools.passes.fusion._written_attention import match_written
from irtools.passes.fusion.attention_match import AttentionMatch, match_attention

__all__ = ["FuseAttention"]

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


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
    heads, reshapes, or with a mask that they would have to broadcast are brought to this form.

    Rows masked throughout keep their meaning: 0 under the guard; the mean of V under a mask of
    the lowest finite number, which runtimes take for "masked" and which is therefore halved.
    Without the guard a row masked throughout by -inf was NaN and is 0 afterwards.

    Shapes must prove that Q, K and V agree and that the mask does not widen the scores. What
    was not fused is counted, with the reason. Raises the opset to 23. Main graph and nested
    subgraphs.
    """

    name: ClassVar[str] = "fuse-attention"
    statistics: ClassVar = {
        "num-fused-attention": "attention blocks fused",
        "num-unfused-attention": "attention blocks that stayed, each named with its reason",
    }
    fusion: ClassVar[Fusion] = Fusion("attention", "Attention", 23, ("Softmax", "Attention"))

    def rewriter(self, facts: SymbolicShapes, names: FreshNames) -> Rewriter:
        return _AttentionRewriter(facts, names)


class _AttentionRewriter(Rewriter):
    """Rewrites attention blocks; masks are made once and shared by all blocks."""

    def __init__(self, facts: SymbolicShapes, names: FreshNames) -> None:
        super().__init__(facts, names)
        self._masks = MaskBuilder(names)

    def match(self, anchor: ir.Node) -> AttentionMatch:
        written = anchor.op_type == "Attention"
        find = match_written if written else match_attention
        found = find(anchor, self.facts)
        known = _type_of(found) in _FLOATS
        require(known, "Q is not known to be float32 or float16", named=not written)
        return found

    def rewrite(self, anchor: ir.Node, found: object) -> None:
        assert isinstance(found, AttentionMatch)
        old = found.output if found.packed is None else found.packed.output
        last = old.producer()
        graph = anchor.graph
        assert last is not None and graph is not None
        source = Source("fuse-attention", anchor, _replaced(found, last))
        nodes: list[ir.Node] = []
        mask = self._masks.build(found, _type_of(found), source, nodes)
        q, k, v = (
            (found.packed.q, found.packed.k, found.packed.v)
            if found.packed is not None
            else (self._heads_first(x, source, nodes) for x in (found.q, found.k, found.v))
        )
        attributes: dict[str, object] = {"scale": found.scale}
        if found.causal:
            attributes["is_causal"] = 1
        if found.packed is not None:
            attributes["q_num_heads"] = found.packed.heads
            attributes["kv_num_heads"] = found.packed.kv_heads
        cache = None if found.packed is None else found.packed.cache
        inputs: list[ir.Value | None] = [q, k, v]
        if mask is not None or cache is not None:
            inputs.append(mask)
        if cache is not None:
            inputs += [cache.past_key, cache.past_value]
        outputs = 1 if cache is None else 3
        fused = make_node("Attention", inputs, source, self.names, attributes, outputs)
        graph.insert_before(last, [*nodes, fused])
        self.replace(old, fused.outputs[0])
        dead = [last]
        if cache is not None:
            presents = (cache.present_key, cache.present_value)
            for joined, present in zip(presents, fused.outputs[1:], strict=True):
                dead += [node for node in [joined.producer()] if node is not None]
                self.replace(joined, present)
        remove_dead(dead)

    def _heads_first(self, x: Operand, source: Source, nodes: list[ir.Node]) -> ir.Value:
        if x.perm == HEADS_FIRST:
            return x.base
        node = make_node("Transpose", [x.base], source, self.names, {"perm": list(x.perm)})
        nodes.append(node)
        return node.outputs[0]


def _type_of(found: AttentionMatch) -> ir.DataType | None:
    return element_type(found.q.base)


def _replaced(found: AttentionMatch, last: ir.Node) -> tuple[ir.Node, ...]:
    product = found.output.producer()
    scores = found.anchor.inputs[0]
    makers = [None if scores is None else scores.producer(), found.anchor, product, last]
    return tuple(dict.fromkeys(node for node in makers if node is not None))
