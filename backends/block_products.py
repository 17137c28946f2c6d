"""Products by weights in blocks in the layout of com.microsoft.MatMulNBits, for every runtime.

MatMul(x, DQ(codes [K, N], axis 0))              ->  MatMulNBits(x, codes [N, K/g, bytes])
MatMul(x, Transpose(DQ(codes [V, H], axis 1)))   ->  MatMulNBits(x, codes [V, H/g, bytes])
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from irtools.backends.block_tables import DOMAIN, BlockTable, block_table
from irtools.editing import Editor

__all__ = ["multiplied", "multiply", "operands"]

_BLOCKS = frozenset({16, 32, 64, 128, 256})
_SLAB = 1 << 20
"""Codes that are moved to their new places together."""


def operands(editor: Editor, table: BlockTable) -> list[ir.Value | None]:
    """Return codes, scales and zero points as MatMulNBits takes them, as constants."""
    # After the codes, which these take the place of: exporters' names of outputs are long.
    codes, graph = table.node.inputs[0], table.node.graph
    assert isinstance(graph, ir.Graph)
    stem = (None if codes is None else codes.name) or "weight"
    zeros = _zero_points(table)
    scales = _by_channel(table.scale.numpy(), table.axis)
    return [
        editor.constant(f"{stem}_blocks", _in_blocks(table), graph=graph),
        editor.constant(f"{stem}_scales", scales, graph=graph),
        None if zeros is None else editor.constant(f"{stem}_zero_points", zeros, graph=graph),
    ]


def multiply(
    editor: Editor,
    anchor: ir.Node,
    table: BlockTable,
    weight: Sequence[ir.Value | None],
    **attributes: int,
) -> None:
    """Write a MatMul or Gemm as MatMulNBits.

    Args:
        anchor: The product, of `table` as `multiplied` returned it.
        weight: Of `operands`.
        attributes: Further ones.
    """
    channels, inner = table.size
    sizes = {"K": inner, "N": channels, "bits": table.bits, "block_size": table.block}
    inputs = [anchor.inputs[0], *weight]
    if len(anchor.inputs) > 2 and anchor.inputs[2] is not None:
        inputs += [None, anchor.inputs[2]]
    while inputs[-1] is None:
        inputs.pop()
    unread = anchor.inputs[1]
    editor.replace(anchor, "MatMulNBits", inputs, {**sizes, **attributes}, domain=DOMAIN)
    editor.drop_unread(unread)


def multiplied(node: ir.Node) -> BlockTable | None:
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

    Codes below 8 bits that are in rows already are only reinterpreted as unsigned.
    """
    channels, inner = table.size
    width = table.block * table.bits // 8
    shape = (channels, inner // table.block, width)
    if table.axis == 1 and table.bits < 8:
        packed = np.frombuffer(table.codes.tobytes(), np.uint8)
        # -8..7 and 0..15 differ in the highest bit of each code.
        highest = np.uint8(0x88 if table.bits == 4 else 0xAA)
        return (packed ^ highest if table.signed else packed).reshape(shape)
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
    """Pack rows of codes; a row that ends inside a byte is filled up with zeros."""
    if bits == 8:
        return codes
    each = 8 // bits
    codes = np.pad(codes, [(0, 0), (0, -codes.shape[1] % each)])
    packed = codes[:, 0::each].copy()
    for place in range(1, each):
        packed |= codes[:, place::each] << np.uint8(bits * place)
    return packed


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
