"""Products by weights in blocks, in the forms of com.microsoft.

    MatMul(x, DQ(codes [K, N], axis 0))              ->  MatMulNBits(x, codes [N, K/g, bytes])
    MatMul(x, Transpose(DQ(codes [V, H], axis 1)))   ->  MatMulNBits(x, codes [V, H/g, bytes])
    MatMul(x, Transpose(levels of nf4 codes [N, K])) ->  MatMulBnb4(x, codes)

and Gemm with and without transB likewise. The session makes MatMulNBits of the first form by
itself, but not of a Gemm, and expands the weight in front of a Transpose at each run.
`accuracy_level` 4 quantizes activations per token and block and multiplies integers; with 2 and 8
bits anything else expands the weight at each run, with 4 bits it multiplies in float32 (1.31),
which a weight may ask for (`has_exact_activations`). Of 2 bits there are kernels for blocks of 32
to 128.

Scales of 8 bits stay a product of codes and steps, which the session computes when it loads the
model; a MatMulNBits that reads a computed scale gives zeros without optimizations (1.31), so that
these products are left to the session.

A table that is also looked up is stored once: MatMulNBits insists on [V, H/g, bytes], in which
GatherBlockQuantized looks rows up as well; a Reshape joins their blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from irtools.backends.block_products import multiplied, multiply, operands
from irtools.backends.block_tables import (
    DOMAIN,
    BlockLookup,
    BlockTable,
    require_rows,
)
from irtools.backends.onnxruntime.nf4 import Nf4Product, is_plain
from irtools.backends.onnxruntime.nibble_tables import NibbleLookup
from irtools.editing import Editor, Rule, Veto, require, rewrite
from irtools.model import has_exact_activations

__all__ = ["lower_block_weights"]

_ROUNDING, _EXACT = 4, 1
"""Accuracy levels: activations in 8 bits, and in float32."""


def lower_block_weights(editor: Editor) -> Mapping[str, int]:
    """Rewrite products by, and lookups in, weights in blocks; returns counts by operator.

    Covers the main graph and graphs nested in it.
    """
    made: _Made = {}
    # Products first: a lookup then finds the table in their form.
    products = rewrite(editor, [Nf4Product(), BlockProduct(made)])
    lookups = rewrite(editor, [TiedLookup(made), NibbleLookup(), BlockLookup()])
    return products.counts + lookups.counts


_Made: TypeAlias = "dict[ir.Node, list[ir.Value | None]]"
"""Codes, scales and zero points of weights in the form of MatMulNBits, each made once."""


class BlockProduct(Rule[BlockTable]):
    """MatMul(x, DQ(codes))  ->  MatMulNBits(x, codes), and Gemm likewise"""

    name = "MatMulNBits"
    anchors = ("MatMul", "Gemm")

    def __init__(self, made: _Made) -> None:
        self._made = made

    def find(self, anchor: ir.Node) -> BlockTable:
        require(is_plain(anchor), "not x @ W + b", named=False)
        table = multiplied(anchor)
        if table is None:
            raise Veto("no product by a weight in blocks", named=False)
        if table.coded and not _joins_an_add(anchor):
            raise Veto("the session widens its scales and makes the product itself", named=False)
        return table

    def build(self, editor: Editor, anchor: ir.Node, found: BlockTable) -> None:
        level = _EXACT if has_exact_activations(found.node) else _ROUNDING
        multiply(editor, anchor, found, self._operands(editor, found), accuracy_level=level)

    def _operands(self, editor: Editor, table: BlockTable) -> list[ir.Value | None]:
        """Return codes, scales and zero points as MatMulNBits takes them."""
        found = self._made.get(table.node)
        if found is not None:
            return found
        made = self._made[table.node] = operands(editor, table)
        return made


@dataclass(frozen=True)
class _Tied:
    """A lookup in a table that a product has been made of."""

    table: BlockTable
    ids: ir.Value
    rank: int
    operands: list[ir.Value]


class TiedLookup(Rule[_Tied]):
    """Gather(DQ(codes), ids)  ->  Reshape(GatherBlockQuantized(codes [V, H/g, bytes], ids))"""

    name = "GatherBlockQuantized"
    anchors = ("Gather",)

    def __init__(self, made: _Made) -> None:
        self._made = made

    def find(self, anchor: ir.Node) -> _Tied:
        table, ids = require_rows(anchor), anchor.inputs[1]
        operands = self._made.get(table.node)
        if operands is None or ids is None or ids.shape is None:
            raise Veto("no product reads the table", named=False)
        # Zero points of 4 bits are packed, two to a byte.
        require(operands[2] is None or table.bits == 8, "zero points are packed", named=False)
        return _Tied(table, ids, ids.shape.rank(), [v for v in operands if v is not None])

    def build(self, editor: Editor, anchor: ir.Node, found: _Tied) -> None:
        table, graph, stem = found.table, anchor.graph, anchor.outputs[0].name or "rows"
        assert isinstance(graph, ir.Graph)
        last = editor.constant(f"{stem}_last_axis", np.array([-1], np.int64), graph=graph)
        blocks, *parameters = found.operands
        # Scales and zero points [V, H/g] as [V, H/g, 1]; folded when the model loads.
        widened = [
            editor.before(
                anchor,
                "Unsqueeze",
                [value, last],
                name=f"{value.name}/Unsqueeze",
                outputs={f"{value.name}_by_block": None},
            )
            for value in parameters
        ]
        attributes = {
            "bits": table.bits,
            "block_size": table.block,
            "gather_axis": 0,
            "quantize_axis": 2,
        }
        rows = editor.before(
            anchor,
            "GatherBlockQuantized",
            [blocks, found.ids, *widened],
            attributes,
            domain=DOMAIN,
            name=f"{stem}/GatherBlockQuantized",
            outputs={f"{stem}_blocks": None},
        )
        sizes = np.array([0] * found.rank + [table.size[1]], np.int64)
        shape = editor.constant(f"{stem}_shape", sizes, graph=graph)
        editor.replace(anchor, "Reshape", [rows, shape])
        editor.drop_unread(table.node)


def _joins_an_add(product: ir.Node) -> bool:
    """Whether the session might make a Gemm of a product and what is added to it.

    It does so before it makes products by blocks, with matrices and anything but a bias (1.31), and
    then expands the weight at each run.
    """
    activation, readers = product.inputs[0], tuple(product.outputs[0].uses())
    is_matrix = activation is None or activation.shape is None or activation.shape.rank() <= 2
    return is_matrix and any(use.node.op_type == "Add" for use in readers)
