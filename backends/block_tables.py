"""Weights in blocks as both runtimes' lowerings read them, and lookups in them.

    Gather(DQ(codes [V, H], axis 1, block), ids)  ->  GatherBlockQuantized(codes, ids)

Left as they are, ONNX Runtime expands the whole table at each run and OpenVINO once when it loads
the model; both read com.microsoft.GatherBlockQuantized row by row and give the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.editing import Editor, Rule, Veto, constant_of, require

__all__ = ["DOMAIN", "BlockLookup", "BlockTable", "block_table", "require_rows"]

DOMAIN = "com.microsoft"

_SIGNED = frozenset({ir.DataType.INT2, ir.DataType.INT4, ir.DataType.INT8})
_CODES = _SIGNED | {ir.DataType.UINT2, ir.DataType.UINT4, ir.DataType.UINT8}


@dataclass(frozen=True, eq=False)
class BlockTable:
    """A DequantizeLinear in blocks over a constant matrix.

    Attributes:
        node: The DequantizeLinear.
        codes: [K, N] with axis 0, [N, K] with axis 1; K is a multiple of the block.
        scale: As the codes, but for the block axis.
        coded: What the scale is computed from, where it is: its codes int8 of the same shape, and
            a step float32 for each output channel, [1, N].
        zero_point: As `scale`, or None.
        axis: Where blocks lie.
        block: Their size.
    """

    node: ir.Node
    codes: ir.TensorProtocol
    scale: ir.TensorProtocol
    zero_point: ir.TensorProtocol | None
    axis: int
    block: int
    coded: tuple[ir.TensorProtocol, ir.TensorProtocol] | None = None

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return int(self.codes.dtype.bitwidth)

    @property
    def signed(self) -> bool:
        """Whether codes are signed."""
        return self.codes.dtype in _SIGNED

    @property
    def size(self) -> tuple[int, int]:
        """Output channels N, input channels K."""
        rows, columns = (int(d) for d in self.codes.shape.numpy())
        return (columns, rows) if self.axis == 0 else (rows, columns)


def block_table(value: ir.Value | None) -> BlockTable | None:
    """Return the weight in blocks that a value is, or None."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "DequantizeLinear" or node.domain != "":
        return None
    block = node.attributes.get_int("block_size", 0)
    codes, scale, zero = (constant_of(v) for v in (*node.inputs, None)[:3])
    coded = None if scale is not None else _coded_scale(node.inputs[1])
    if coded is not None:
        scale = ir.tensor(coded[0].numpy().astype(np.float32) * coded[1].numpy())
    has_zero = len(node.inputs) > 2 and node.inputs[2] is not None
    if not block or codes is None or scale is None or (has_zero and zero is None):
        return None
    if codes.dtype not in _CODES or len(codes.shape) != 2:
        return None
    axis = node.attributes.get_int("axis", 1) % 2
    if int(codes.shape.numpy()[axis]) % block:
        return None
    return BlockTable(node, codes, scale, zero, axis, block, coded)


def _coded_scale(value: ir.Value | None) -> tuple[ir.TensorProtocol, ir.TensorProtocol] | None:
    """Return codes int8 [K / block, N] and steps float32 [1, N] whose product a scale is."""
    product = value.producer() if value is not None else None
    if product is None or product.op_type != "Mul" or product.domain != "":
        return None
    wide, steps = product.inputs[0], constant_of(product.inputs[1])
    cast = wide.producer() if wide is not None else None
    if cast is None or cast.op_type != "Cast" or steps is None:
        return None
    codes = constant_of(cast.inputs[0])
    if codes is None or codes.dtype != ir.DataType.INT8 or len(codes.shape) != 2:
        return None
    is_float = steps.dtype == ir.DataType.FLOAT
    rows = (1, *codes.shape.numpy()[1:])
    return (codes, steps) if is_float and tuple(steps.shape.numpy()) == rows else None


class BlockLookup(Rule[BlockTable]):
    """Gather(DQ(codes [V, H], axis 1, block), ids)  ->  GatherBlockQuantized(codes, ids)

    Signed codes of 8 bits are left alone: the operator takes them unsigned.
    """

    name = "GatherBlockQuantized"
    anchors = ("Gather",)

    def find(self, anchor: ir.Node) -> BlockTable:
        table = require_rows(anchor)
        require(table.codes.dtype != ir.DataType.INT8, "codes are signed", named=False)
        require(table.bits > 2, "lookups have no codes of 2 bits", named=False)
        return table

    def build(self, editor: Editor, anchor: ir.Node, found: BlockTable) -> None:
        source = found.node
        inputs = [source.inputs[0], anchor.inputs[1], *source.inputs[1:]]
        attributes = {
            "block_size": found.block,
            "gather_axis": 0,
            "quantize_axis": 1,
            "bits": found.bits,
        }
        editor.replace(anchor, "GatherBlockQuantized", inputs, attributes, domain=DOMAIN)
        editor.drop_unread(source)


def require_rows(gather: ir.Node) -> BlockTable:
    """Return the table [V, H] in blocks along H of which a Gather takes rows.

    Raises:
        Veto: It takes something else.
    """
    table = block_table(gather.inputs[0])
    if table is None or table.coded or table.axis != 1 or gather.attributes.get_int("axis", 0) != 0:
        raise Veto("not a lookup of rows in blocks", named=False)
    return table
