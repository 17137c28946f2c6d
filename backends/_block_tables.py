"""Weights in blocks as both runtimes' lowerings read them, and lookups in them.

    Gather(DQ(codes [V, H], axis 1, block), ids)  ->  GatherBlockQuantized(codes, ids)

Left as they are, ONNX Runtime expands the whole table at each run and OpenVINO once when it loads
the model; both read com.microsoft.GatherBlockQuantized row by row and give the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from irtools.analysis.shapes import constant_of

__all__ = ["DOMAIN", "BlockTable", "block_table", "lower_lookup", "put", "remove_if_unread"]

DOMAIN = "com.microsoft"

_CODES = frozenset({ir.DataType.INT4, ir.DataType.UINT4, ir.DataType.INT8, ir.DataType.UINT8})


@dataclass(frozen=True, eq=False)
class BlockTable:
    """A DequantizeLinear in blocks over a constant matrix.

    Attributes:
        node: The DequantizeLinear.
        codes: [K, N] with axis 0, [N, K] with axis 1; K is a multiple of the block.
        scale: As the codes, but for the block axis.
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

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return int(self.codes.dtype.bitwidth)

    @property
    def signed(self) -> bool:
        """Whether codes are signed."""
        return self.codes.dtype in (ir.DataType.INT4, ir.DataType.INT8)

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
    has_zero = len(node.inputs) > 2 and node.inputs[2] is not None
    if not block or codes is None or scale is None or (has_zero and zero is None):
        return None
    if codes.dtype not in _CODES or len(codes.shape) != 2:
        return None
    axis = node.attributes.get_int("axis", 1) % 2
    if int(codes.shape.numpy()[axis]) % block:
        return None
    return BlockTable(node, codes, scale, zero, axis, block)


def lower_lookup(gather: ir.Node) -> bool:
    """Rewrite a Gather of rows; False where it is none.

    Signed codes of 8 bits are left alone: the operator wants them unsigned.
    """
    if gather.op_type != "Gather" or gather.attributes.get_int("axis", 0) != 0:
        return False
    table = block_table(gather.inputs[0])
    if table is None or table.axis != 1 or table.codes.dtype == ir.DataType.INT8:
        return False
    source = table.node
    inputs = [source.inputs[0], gather.inputs[1], *source.inputs[1:]]
    attributes = [
        ir.AttrInt64("block_size", table.block),
        ir.AttrInt64("gather_axis", 0),
        ir.AttrInt64("quantize_axis", 1),
        ir.AttrInt64("bits", table.bits),
    ]
    put(gather, "GatherBlockQuantized", inputs, attributes)
    remove_if_unread(source)
    return True


def put(
    old: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: Iterable[ir.Attr],
    domain: str = DOMAIN,
) -> ir.Node:
    """Put a node of com.microsoft in the place of one with one output; names and types stay."""
    new = ir.Node(domain, op_type, inputs, attributes, name=old.name)
    new.metadata_props.update(old.metadata_props)
    output, made = old.outputs[0], new.outputs[0]
    made.name, made.type, made.shape = output.name, output.type, output.shape
    made.metadata_props.update(output.metadata_props)
    graph = old.graph
    assert graph is not None
    graph.insert_before(old, new)
    ir.convenience.replace_all_uses_with(output, made, replace_graph_outputs=True)
    graph.remove(old, safe=True)
    graph.opset_imports.setdefault(domain, 1)
    return new


def remove_if_unread(node: ir.Node | None) -> None:
    """Remove a node that nobody reads, and then what it alone has read."""
    pending = [node]
    while pending:
        node = pending.pop()
        if node is None or node.graph is None:
            continue
        if any(v.uses() or v.is_graph_output() for v in node.outputs):
            continue
        inputs = [value for value in node.inputs if value is not None]
        node.graph.remove(node, safe=True)
        for value in inputs:
            pending.append(value.producer())
            if value.is_initializer() and not (
                value.uses() or value.is_graph_input() or value.is_graph_output()
            ):
                assert value.graph is not None and value.name is not None
                del value.graph.initializers[value.name]
