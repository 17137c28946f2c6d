"""Products by weights of 2 bits, whose types OpenVINO reads in one operator alone (2026.4)."""

from __future__ import annotations

import onnx_ir as ir

from irtools.backends.block_products import multiplied, multiply, operands
from irtools.backends.block_tables import BlockTable
from irtools.editing import Editor, Rule, Veto, require, rewrite
from irtools.model import Model, iter_graphs

__all__ = ["NarrowProduct", "readable"]

_NARROW = frozenset({ir.DataType.INT2, ir.DataType.UINT2})


def readable(model: Model) -> Model:
    """Return a model that OpenVINO can read: itself, or a copy without tensors of 2 bits."""
    if not any(
        value.dtype in _NARROW
        for graph in iter_graphs(model.ir)
        for value in graph.initializers.values()
    ):
        return model
    copy = model.clone()
    rewrite(Editor(copy.ir, "lower"), [NarrowProduct()])
    return copy


class NarrowProduct(Rule[BlockTable]):
    """MatMul(x, DQ(codes of 2 bits))  ->  MatMulNBits(x, codes), and Gemm likewise"""

    name = "MatMulNBits"
    anchors = ("MatMul", "Gemm")

    def find(self, anchor: ir.Node) -> BlockTable:
        table = multiplied(anchor)
        if table is None:
            raise Veto("no product by a weight in blocks", named=False)
        require(table.bits == 2, "the runtime reads wider codes itself", named=False)
        return table

    def build(self, editor: Editor, anchor: ir.Node, found: BlockTable) -> None:
        multiply(editor, anchor, found, operands(editor, found))
