"""Products by weights in blocks, in the forms of com.microsoft.

    MatMul(x, DQ(codes [K, N], axis 0))              ->  MatMulNBits(x, codes [N, K/g, bytes])
    MatMul(x, Transpose(DQ(codes [V, H], axis 1)))   ->  MatMulNBits(x, codes [V, H/g, bytes])
    MatMul(x, Transpose(levels of nf4 codes [N, K])) ->  MatMulBnb4(x, codes)

and Gemm with and without transB likewise. The session makes MatMulNBits of the first form by
itself, but not of a Gemm, and expands the weight in front of a Transpose at each run.
`accuracy_level` 4 quantizes activations per token and block and multiplies integers; with 8 bits,
anything else expands the weight at each run (1.31).

A table that is also looked up is stored once: MatMulNBits insists on [V, H/g, bytes], in which
GatherBlockQuantized looks rows up as well; a Reshape joins their blocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

from irtools.backends._block_tables import (
    DOMAIN,
    BlockTable,
    block_table,
    lower_lookup,
    put,
    remove_if_unread,
)
from irtools.backends.onnxruntime._nf4 import lower_nf4
from irtools.backends.onnxruntime._nibble_tables import lower_nibble_lookup
from irtools.model.naming import FreshNames
from irtools.model.walk import nested_graphs

__all__ = ["lower_block_weights"]

_BLOCKS = frozenset({16, 32, 64, 128, 256})
_SLAB = 1 << 20
"""Codes that are brought into their new places together."""


def lower_block_weights(model: ir.Model, names: FreshNames) -> Mapping[str, int]:
    """Rewrite products by, and lookups in, weights in blocks; returns counts by operator.

    Covers the main graph and graphs nested in it.
    """
    counts: Counter[str] = Counter()
    for graph in nested_graphs(model.graph):
        lowering = _Lowering(names)
        nodes = [n for n in graph if n.domain == "" and n.op_type in ("MatMul", "Gemm", "Gather")]
        # Products first: a lookup then finds the table in their form.
        for node in sorted(nodes, key=lambda n: n.op_type == "Gather"):
            counts.update(lowering.visit(node))
    if counts:
        model.graph.opset_imports.setdefault(DOMAIN, 1)
    return counts


class _Lowering:
    """Rewrites the nodes of one graph. A weight with several readers is brought over once."""

    def __init__(self, names: FreshNames) -> None:
        self._names = names
        self._made: dict[ir.Node, list[ir.Value | None]] = {}

    def visit(self, node: ir.Node) -> Iterator[str]:
        """Rewrite one node; yields the operator it became."""
        if node.op_type == "Gemm" and not _is_plain(node):
            return
        if node.op_type == "Gather":
            if self._tied_lookup(node):
                yield "GatherBlockQuantized"
            elif lower_nibble_lookup(node, self._names):
                yield "nibble-lookup"
            elif lower_lookup(node):
                yield "GatherBlockQuantized"
        elif lower_nf4(node, self._names):
            yield "MatMulBnb4"
        elif self._product(node):
            yield "MatMulNBits"

    def _product(self, node: ir.Node) -> bool:
        table = _multiplied(node)
        if table is None:
            return False
        channels, inner = table.size
        attributes = [
            ir.AttrInt64("K", inner),
            ir.AttrInt64("N", channels),
            ir.AttrInt64("bits", table.bits),
            ir.AttrInt64("block_size", table.block),
            ir.AttrInt64("accuracy_level", 4),
        ]
        inputs = [node.inputs[0], *self._operands(table)]
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            inputs += [None, node.inputs[2]]
        while inputs[-1] is None:
            inputs.pop()
        weight = node.inputs[1]
        put(node, "MatMulNBits", inputs, attributes)
        remove_if_unread(weight.producer() if weight is not None else None)
        return True

    def _operands(self, table: BlockTable) -> list[ir.Value | None]:
        """Return codes, scales and zero points as MatMulNBits takes them."""
        found = self._made.get(table.node)
        if found is not None:
            return found
        # After the codes, which these take the place of: exporters' names of outputs are long.
        codes = table.node.inputs[0]
        stem = (None if codes is None else codes.name) or "weight"
        arrays = {
            "blocks": _in_blocks(table),
            "scales": _by_channel(table.scale.numpy(), table.axis),
            "zero_points": _zero_points(table),
        }
        made = [
            None if array is None else self._constant(table.node, f"{stem}_{part}", array)
            for part, array in arrays.items()
        ]
        self._made[table.node] = made
        return made

    def _tied_lookup(self, node: ir.Node) -> bool:
        """Rewrite a lookup in a table that a product has been made of."""
        if node.attributes.get_int("axis", 0) != 0:
            return False
        table, ids = block_table(node.inputs[0]), node.inputs[1]
        if table is None or ids is None or ids.shape is None or table.node not in self._made:
            return False
        blocks, scale, zero = self._made[table.node]
        assert blocks is not None and scale is not None
        if zero is not None and table.bits != 8:
            return False  # Packed, two to a byte.
        graph, stem = node.graph, node.outputs[0].name or "rows"
        assert graph is not None
        last = self._constant(node, f"{stem}_last_axis", np.array([-1], np.int64))
        operands = [None if v is None else self._widened(node, v, last) for v in (scale, zero)]
        attributes = [
            ir.AttrInt64("bits", table.bits),
            ir.AttrInt64("block_size", table.block),
            ir.AttrInt64("gather_axis", 0),
            ir.AttrInt64("quantize_axis", 2),
        ]
        rows = ir.Node(
            DOMAIN,
            "GatherBlockQuantized",
            [blocks, ids, *(value for value in operands if value is not None)],
            attributes,
            name=self._names.make(f"{stem}/GatherBlockQuantized"),
        )
        rows.outputs[0].name = self._names.make(f"{stem}_blocks")
        graph.insert_before(node, rows)
        sizes = np.array([0] * ids.shape.rank() + [table.size[1]], np.int64)
        shape = self._constant(node, f"{stem}_shape", sizes)
        put(node, "Reshape", [rows.outputs[0], shape], (), domain="")
        remove_if_unread(table.node)
        return True

    def _widened(self, anchor: ir.Node, value: ir.Value, last: ir.Value) -> ir.Value:
        """Return scales or zero points [V, H/g] as [V, H/g, 1]; folded when the model loads."""
        node = ir.node("Unsqueeze", [value, last], name=self._names.make(f"{value.name}/Unsqueeze"))
        node.outputs[0].name = self._names.make(f"{value.name}_by_block")
        assert anchor.graph is not None
        anchor.graph.insert_before(anchor, node)
        return node.outputs[0]

    def _constant(self, beside: ir.Node, name: str, array: np.ndarray) -> ir.Value:
        assert beside.graph is not None
        name = self._names.make(name)
        value = ir.val(name, const_value=ir.tensor(array, name=name))
        beside.graph.register_initializer(value)
        return value


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


def _is_plain(gemm: ir.Node) -> bool:
    """Whether a Gemm is x @ W + b with a bias per channel."""
    get = gemm.attributes.get_float
    if gemm.attributes.get_int("transA", 0) or get("alpha", 1.0) != 1.0:
        return False
    if len(gemm.inputs) < 3 or gemm.inputs[2] is None:
        return True
    shape = gemm.inputs[2].shape
    return get("beta", 1.0) == 1.0 and shape is not None and shape.rank() == 1


def _in_blocks(table: BlockTable) -> np.ndarray:
    """Return the codes as uint8 [N, K/g, g * bits / 8], the first of two in the low half.

    Codes of 4 bits that lie in rows already are only looked at as unsigned.
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
    points = _by_channel(table.zero_point.numpy(), table.axis)
    return _packed(_unsigned(points, table), table.bits)
