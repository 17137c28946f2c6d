"""Keeping LayerNormalization on the runtime's fast kernel.

The runtime fuses Add and LayerNormalization to SkipLayerNormalization at load. On its CPU
provider that kernel works number by number: 0.80 ms for [128, 768], where Add and
LayerNormalization take 0.15 ms (1.31, one thread). Its fusion looks for an Add; a Sum of two is
the same addition, bit for bit, and is left alone. Can go when the fused kernel is faster.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from irtools.editing import Editor, Rule, Veto, array_of, producer_of, require

__all__ = ["SumBeforeLayerNorm", "UnfuseSkipLayerNorm"]

_LAYER_NORM_SINCE = 17


class SumBeforeLayerNorm(Rule[ir.Node]):
    """LayerNormalization(Add(x, skip))  ->  LayerNormalization(Sum(x, skip)), in float32"""

    name = "sum-before-layer-norm"
    anchors = ("LayerNormalization",)

    def find(self, anchor: ir.Node) -> ir.Node:
        add = producer_of(anchor.inputs[0], "Add")
        if add is None or add.graph is not anchor.graph or not _is_float32(anchor.inputs[1]):
            raise Veto("not the normalization of a sum in float32", named=False)
        return add

    def build(self, editor: Editor, anchor: ir.Node, found: ir.Node) -> None:
        editor.replace(found, "Sum", found.inputs)


class UnfuseSkipLayerNorm(Rule[None]):
    """SkipLayerNormalization(x, skip, gamma, beta, bias)  ->  LayerNormalization(Sum(...))

    For models that were fused by another tool. Its fourth output is the sum itself.
    """

    name = "unfused-skip-layer-norm"
    anchors = ("com.microsoft::SkipLayerNormalization",)

    def __init__(self, opset: int) -> None:
        self._opset = opset

    def find(self, anchor: ir.Node) -> None:
        statistics = any(v.uses() or v.is_graph_output() for v in anchor.outputs[1:3])
        require(self._opset >= _LAYER_NORM_SINCE and not statistics, "no such form", named=False)
        require(_is_float32(anchor.inputs[2]), "not known to be in float32", named=False)

    def build(self, editor: Editor, anchor: ir.Node, found: None) -> None:
        x, skip, gamma, beta, bias = [*anchor.inputs, None, None][:5]
        output, *_ = anchor.outputs
        total = editor.before(
            anchor,
            "Sum",
            [value for value in (x, skip, bias) if value is not None],
            name=f"{anchor.name}_sum" if anchor.name else "",
            outputs={f"{output.name}_sum": ir.DataType.FLOAT},
            shape=output.shape,
        )
        if len(anchor.outputs) == 4:
            editor.substitute(anchor.outputs[3], total)
        attributes = {"axis": -1, "epsilon": anchor.attributes.get_float("epsilon", 1e-12)}
        inputs = [total, gamma, beta]
        editor.replace(anchor, "LayerNormalization", inputs, attributes, outputs=1)


def _is_float32(gamma: ir.Value | None) -> bool:
    """Whether a normalization works in float32; inner tensors often carry no type."""
    array = array_of(gamma)
    return array is not None and array.dtype == np.float32
