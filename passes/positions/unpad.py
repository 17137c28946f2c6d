"""The pass `unpad`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from irtools.analysis.provenance import module_name
from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import Editor
from irtools.model import PaddedOutput, note_padded_outputs, opset_of, raise_opset
from irtools.passes.positions.by_length import SPLIT_OPSET, find_attention
from irtools.passes.positions.masks import find_masks
from irtools.passes.positions.pack import MIN_OPSET, Wanted, pack
from irtools.passes.positions.padding.analysis import Clash
from irtools.passes.positions.padding.base import CLOSED
from irtools.passes.positions.region import Region, find_region
from irtools.passmanager import FOLLOWED_GRAPH, Exactness, Pass, PassContext, PassResult, option
from irtools.words import counted, printable

__all__ = ["Unpad"]

_STEP = 16
"""Rows of a batch are a multiple of this where kernels are made for each number of rows: at most
15 too many, and hundreds of numbers in place of thousands."""


@dataclass(frozen=True)
class Unpad(Pass):
    """Compute only the tokens of padded texts.

    Texts of a batch are padded to the longest, and every operator computes the padding, too. With
    the mask [B, S] of the model, the positions that it marks are found once, at run time:

        index = NonZero(mask)          [2, T]     T: tokens of all texts together
        x [B, S, H]  ->  [T, H]                   in front of what computes each token by itself
        [T, H]  ->  [B, S, H]                     in front of attention, and of results

    so that products, norms, activations and residual sums between two attention blocks run on T
    rows instead of B * S (as in ByteTransformer, Zhai et al. 2023). Attention runs on whole rows;
    with `split`, texts at most half as long as the longest go through fused attention apart, cut to
    that half. For OpenVINO those at most a quarter as long go through it apart once more, and T is
    rounded up to a multiple of 16, because kernels are made for each T that comes. A text alone has
    nothing to gain and costs some percent more, but for OpenVINO, whose form has the model as it
    was as a branch for it. Give it after `fuse` and `prune`.

    Results at tokens keep their numbers: what is not computed is nowhere read by them, which is
    proven node by node, with the mask of any form that ends in attention's scores. So the result of
    a text does not depend on what it is batched with, after static int8 bit for bit. A result
    [B, S, ...] of the model holds 0 at padding from then on (scores [B, S] -10000, which no
    maximum takes); the model says so in its metadata, a note names it, and comparisons put the
    same there. A text that is padding throughout has no number to keep. A model that reads padding
    elsewhere, as a mean over all positions does, is left as it is, with the reader in a note; so
    is one without a mask.
    """

    name: ClassVar[str] = "unpad"
    exactness: ClassVar[Exactness] = Exactness.REASSOCIATED
    requires: ClassVar[tuple[str, ...]] = (*FOLLOWED_GRAPH, "hoist-shapes", "remove-dead-code")
    counters: ClassVar = {
        "num-unpadded-nodes": "operators that compute tokens alone",
        "num-unpadded-products": "of them products",
        "num-split-attention": "attention blocks that take short texts apart",
    }

    split: bool = option(
        True, "let fused attention take texts at most half as long as the longest apart"
    )

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        facts = ctx.analysis(SymbolicShapes, model)
        region, reason = _find(model.graph, facts)
        if region is not None and opset_of(model) < MIN_OPSET:
            change = raise_opset(model, MIN_OPSET)
            reason = f"it needs opset {MIN_OPSET}, and {change.reason}" if change.reason else reason
            region = None if change.reason else region
        if region is None:
            counts = dict.fromkeys(self.counters, 0)
            return PassResult(False, counts, (f"padding is computed: {reason}",))
        fills = {value: _fill(value, facts) for value in region.results}
        counts = {
            "num-unpadded-nodes": len(region.nodes),
            "num-unpadded-products": region.products,
        }
        attention = self._attention(model, region, facts)
        counts["num-split-attention"] = len(attention)
        mask, notes = region.mask, [_told(region)]
        if fills:
            outputs = {
                value.name or "": PaddedOutput(mask.value.name or "", float(mask.padding), number)
                for value, number in fills.items()
            }
            note_padded_outputs(model, outputs)
            notes.append(_told_fills(outputs))
        target = ctx.target.capabilities
        step = _STEP if target.compiles_shapes else 1
        wanted = Wanted(region, fills, attention, not target.empty_attention, step)
        pack(Editor(model, self.name), wanted, facts)
        return PassResult(True, counts, tuple(notes))

    def _attention(
        self, model: ir.Model, region: Region, facts: SymbolicShapes
    ) -> Sequence[ir.Node]:
        found = find_attention(region, facts) if self.split else ()
        return () if not found or raise_opset(model, SPLIT_OPSET).reason else found


def _find(graph: ir.Graph, facts: SymbolicShapes) -> tuple[Region | None, str]:
    """Return what runs on tokens alone, most products first; else why nothing does."""
    best: Region | None = None
    reason = ""
    for mask in find_masks(graph, facts):
        region = find_region(graph, facts, mask)
        if region.products and region.results and not region.known:
            named = printable(region.results[0].name or "")
            reason = reason or f"no input says what is padding in the result {named}"
        elif region.products:
            if best is None or region.products > best.products:
                best = region
        elif not reason:
            reason = _why(graph, region)
    return best, reason or "no input and no comparison [batch, sequence] says what is padding"


def _why(graph: ir.Graph, region: Region) -> str:
    clash = region.clash
    if clash is None and any(node.op_type == "DynamicQuantizeLinear" for node in graph):
        return "int8 takes ranges of all positions, padding included: give unpad before it"
    if clash is None:
        return f"no product computes each token of {_mask_name(region)} by itself"
    return f"all positions of {printable(clash.value.name or '')} are read by {_reader(clash)}"


def _reader(clash: Clash) -> str:
    if clash.node is None:
        return "the caller, as a result of the model"
    return f"{clash.node.op_type} at {module_name(clash.node)}"


def _mask_name(region: Region) -> str:
    return printable(region.mask.value.name or "")


def _fill(value: ir.Value, facts: SymbolicShapes) -> float:
    """Return what a result holds at padding: 0; scores over positions what no position is."""
    dtype = value.dtype
    is_score = facts.rank(value) == 2 and dtype is not None and dtype.is_floating_point()
    return CLOSED if is_score else 0.0


def _told(region: Region) -> str:
    what = counted(region.products, "product")
    return f"{what} of the tokens alone that {_mask_name(region)} marks, in place of all positions"


def _told_fills(outputs: dict[str, PaddedOutput]) -> str:
    told = (f"{printable(name)} is {output.number:g}" for name, output in outputs.items())
    return f"at padding {', '.join(told)} from now on"
