"""Zeros that are put around an image before a convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import Editor, Rule, Veto, array_of, require, rewrite
from irtools.passmanager import Exactness, Pass, PassContext, PassResult

__all__ = ["FusePad"]


@dataclass(frozen=True)
class FusePad(Pass):
    """Let a Conv add the zeros that a Pad before it adds.

        Conv(Pad(x, [.., a, .., b]), w, pads=[p, q])  ->  Conv(x, w, pads=[p + a, q + b])

    Exporters of TensorFlow models write such pairs. Only zeros along spatial axes, none cut away,
    amounts constant, and nothing but convolutions with explicit padding may read what was padded.
    A runtime skips the zeros, so that sums may round otherwise. Works in the main graph and in
    nested subgraphs.
    """

    name: ClassVar[str] = "fuse-pad"
    exactness: ClassVar[Exactness] = Exactness.REASSOCIATED
    counters: ClassVar = {
        "num-fused-pads": "Pads that their convolutions add themselves",
        "num-unfused-pads": "Pads before convolutions that stayed",
    }

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        done = rewrite(Editor(model, self.name), [_PadConv()])
        counts = {"num-fused-pads": done.total, "num-unfused-pads": len(done.refused)}
        return PassResult(done.total > 0, counts, preserved=frozenset({SymbolicShapes}))


@dataclass(frozen=True)
class _Fused:
    """Convolutions, and the padding that each of them adds in the end: begins, then ends."""

    pads: tuple[tuple[ir.Node, tuple[int, ...]], ...]


class _PadConv(Rule[_Fused]):
    """Conv(Pad(x))  ->  Conv(x)"""

    anchors = ("Pad",)

    def find(self, anchor: ir.Node) -> _Fused:
        padded = anchor.outputs[0]
        uses = padded.uses()
        convolutions = [use.node for use in uses if use.idx == 0 and _is_conv(use.node)]
        if not convolutions:
            raise Veto("no convolution after it", named=False)
        alone = len(convolutions) == len(uses) and not padded.is_graph_output()
        alone &= all(conv.graph is anchor.graph for conv in convolutions)
        require(alone, "what it pads is read elsewhere too")
        added = _zeros_added(anchor)
        rank = len(added) // 2
        spatial = (*added[2:rank], *added[rank + 2 :])
        return _Fused(tuple((conv, _sum_of_pads(conv, spatial)) for conv in convolutions))

    def build(self, editor: Editor, anchor: ir.Node, found: _Fused) -> None:
        amounts = anchor.inputs[1:]
        for conv, pads in found.pads:
            conv.attributes["pads"] = ir.AttrInt64s("pads", pads)
            conv.attributes.pop("auto_pad", None)
            conv.replace_input_with(0, anchor.inputs[0])
        editor.remove(anchor)
        editor.drop_unread(*amounts)


def _is_conv(node: ir.Node) -> bool:
    return node.op_type == "Conv" and node.domain == ""


def _sum_of_pads(conv: ir.Node, added: Sequence[int]) -> tuple[int, ...]:
    explicit = conv.attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    require(explicit, "the convolution derives its padding from the size")
    own = conv.attributes.get_ints("pads", [0] * len(added))
    require(len(own) == len(added), "ranks differ")
    return tuple(a + b for a, b in zip(own, added, strict=True))


def _zeros_added(pad: ir.Node) -> Sequence[int]:
    """Return what a Pad adds before and after every axis.

    Raises:
        Veto: It adds something else than zeros along spatial axes, or amounts are not known.
    """
    constant = pad.attributes.get_string("mode", "constant") == "constant"
    require(constant, "it repeats or mirrors the image")
    amounts = list(pad.attributes.get_ints("pads", pad.attributes.get_ints("paddings", [])))
    fill: float | None = pad.attributes.get_float("value", 0.0)
    if len(pad.inputs) > 1:
        amounts = _integers(pad.inputs[1])
        if len(pad.inputs) > 2 and pad.inputs[2] is not None:
            value = array_of(pad.inputs[2])
            fill = None if value is None or value.size != 1 else float(value.reshape(()))
    if len(pad.inputs) > 3 and pad.inputs[3] is not None:
        amounts = _for_all_axes(pad, amounts, _integers(pad.inputs[3]))
    require(fill == 0, "it pads with something else than zeros")
    rank = len(amounts) // 2
    inner = amounts[:2] + amounts[rank : rank + 2] if rank > 2 else [1]
    require(not any(inner) and min(amounts) >= 0, "it does not only add to spatial axes")
    return amounts


def _for_all_axes(pad: ir.Node, amounts: Sequence[int], axes: Sequence[int]) -> list[int]:
    shape = pad.inputs[0].shape if pad.inputs[0] is not None else None
    require(shape is not None and len(amounts) == 2 * len(axes), "the rank is not known")
    assert shape is not None
    rank = len(shape)
    found = [0] * (2 * rank)
    for index, axis in enumerate(axes):
        found[axis % rank] = amounts[index]
        found[axis % rank + rank] = amounts[index + len(axes)]
    return found


def _integers(value: ir.Value | None) -> list[int]:
    array = array_of(value)
    require(array is not None, "its amounts are computed")
    assert array is not None
    return [int(number) for number in np.asarray(array).reshape(-1)]
