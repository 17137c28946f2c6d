"""Products by weights in blocks, in the forms of com.microsoft.

    MatMul(x, DQ(codes [K, N], axis 0))              ->  MatMulNBits(x, codes [N, K/g, bytes])
    MatMul(x, Transpose(DQ(codes [V, H], axis 1)))   ->  MatMulNBits(x, codes [V, H/g, bytes])
    MatMul(x, Transpose(levels of nf4 codes [N, K])) ->  MatMulBnb4(x, codes)

and Gemm with and without transB likewise. The session makes MatMulNBits of the first form by
itself, but not of a Gemm, and expands the weight in front of a Transpose at each run.
`accuracy_level` 4 quantizes activations per token and block and multiplies integers; with 8 bits,
anything else expands the weight at each run (1.31).

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

from irtools.backends.block_tables import (
    DOMAIN,
    BlockLookup,
    BlockTable,
    block_table,
    require_rows,
)
from irtools.backends.onnxruntime.nf4 import Nf4Product, is_plain
from irtools.backends.onnxruntime.nibble_tables import NibbleLookup
from irtools.editing import Editor, Rule, Veto, require, rewrite

__all__ = ["lower_block_weights"]

_BLOCKS = frozenset({16, 32, 64, 128, 256})
_SLAB = 1 << 20
"""Codes that are moved to their new places together."""


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
        table = _multiplied(anchor)
        if table is None:
            raise Veto("no product by a weight in blocks", named=False)
        if table.coded and not _joins_an_add(anchor):
            raise Veto("the session widens its scales and makes the product itself", named=False)
        return table

    def build(self, editor: Editor, anchor: ir.Node, found: BlockTable) -> None:
        channels, inner = found.size
        attributes = {
            "K": inner,
            "N": channels,
            "bits": found.bits,
            "block_size": found.block,
            "accuracy_level": 4,
        }
        inputs = [anchor.inputs[0], *self._operands(editor, found)]
        if len(anchor.inputs) > 2 and anchor.inputs[2] is not None:
            inputs += [None, anchor.inputs[2]]
        while inputs[-1] is None:
            inputs.pop()
        weight = anchor.inputs[1]
        editor.replace(anchor, "MatMulNBits", inputs, attributes, domain=DOMAIN)
        editor.drop_unread(weight)

    def _operands(self, editor: Editor, table: BlockTable) -> list[ir.Value | None]:
        """Return codes, scales and zero points as MatMulNBits takes them."""
        found = self._made.get(table.node)
        if found is not None:
            return found
        # After the codes, which these take the place of: exporters' names of outputs are long.
        codes, graph = table.node.inputs[0], table.node.graph
        assert isinstance(graph, ir.Graph)
        stem = (None if codes is None else codes.name) or "weight"
        zeros = _zero_points(table)
        made = [
            editor.constant(f"{stem}_blocks", _in_blocks(table), graph=graph),
            editor.constant(
                f"{stem}_scales", _by_channel(table.scale.numpy(), table.axis), graph=graph
            ),
            None if zeros is None else editor.constant(f"{stem}_zero_points", zeros, graph=graph),
        ]
        self._made[table.node] = made
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


def _multiplied(node: ir.Node) -> BlockTable | None:
    """Return the weight in blocks that a MatMul or Gemm multiplies by."""
    value, turned = node.inputs[1], False
    if node.op_type == "Gemm":
        turned = bool(node.attributes.get_int("transB", 0))
    producer = value.producer() if value is not None else None
    if producer is not None and producer.op_type == "Transpose":
        value, turned = producer.inputs[0], not turned
    table = block_table(value)
    if table is None or table.axis != int(turned) or table.block not in _BLOCKS:
        return None
    return table if table.scale.dtype == ir.DataType.FLOAT else None


def _in_blocks(table: BlockTable) -> np.ndarray:
    """Return the codes as uint8 [N, K/g, g * bits / 8], the first of two in the low half.

    Codes of 4 bits that are in rows already are only reinterpreted as unsigned.
    """
    channels, inner = table.size
    width = table.block * table.bits // 8
    shape = (channels, inner // table.block, width)
    if table.axis == 1 and table.bits == 4:
        packed = np.frombuffer(table.codes.tobytes(), np.uint8)
        # -8..7 and 0..15 differ in the highest bit of each half.
        return (packed ^ np.uint8(0x88) if table.signed else packed).reshape(shape)
    codes = table.codes.numpy()
    stored = np.empty((channels, inner * table.bits // 8), np.uint8)
    step = max(_SLAB // max(inner, 1), 1)
    for start in range(0, channels, step):
        cut = slice(start, start + step)
        part = codes[cut] if table.axis == 1 else codes[:, cut].T
        stored[cut] = _packed(_unsigned(np.ascontiguousarray(part), table), table.bits)
    return stored.reshape(shape)


def _unsigned(codes: np.ndarray, table: BlockTable) -> np.ndarray:
    if not table.signed:
        return codes.astype(np.uint8)
    half = 1 << (table.bits - 1)
    return (codes.astype(np.int16) + half).astype(np.uint8)


def _packed(codes: np.ndarray, bits: int) -> np.ndarray:
    """Pack rows of codes; a row of an odd number of 4-bit codes ends in half a byte of zeros."""
    if bits == 8:
        return codes
    if codes.shape[1] % 2:
        codes = np.pad(codes, [(0, 0), (0, 1)])
    return np.asarray(codes[:, 0::2] | (codes[:, 1::2] << 4))


def _by_channel(array: np.ndarray, axis: int) -> np.ndarray:
    return np.ascontiguousarray(array.T if axis == 0 else array)


def _zero_points(table: BlockTable) -> np.ndarray | None:
    """Return packed zero points [N, bytes]; None where they are the middle, the default."""
    if table.zero_point is None and table.signed:
        return None
    channels, inner = table.size
    shape = (channels, inner // table.block)
    if table.zero_point is None:
        return _packed(np.zeros(shape, np.uint8), table.bits)
    points = _unsigned(_by_channel(table.zero_point.numpy(), table.axis), table)
    if (points == 1 << (table.bits - 1)).all():
        return None
    return _packed(points, table.bits)
