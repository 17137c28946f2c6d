"""Following a residual stream from a normalization to all that writes and reads it."""

from __future__ import annotations

import onnx_ir as ir

from irtools.editing import producer_of
from irtools.passes.rotation.layout import axis_after, is_layout
from irtools.passes.rotation.stream import Refusal, is_stream_norm, refuse
from irtools.passes.rotation.trail import Spot, Trail
from irtools.passes.rotation.writers import made

__all__ = ["follow"]

_SUMS = frozenset({"Add", "Concat", "Sub", "Sum", "Where"})
_JOINS = _SUMS | {"Div", "Mul"}
_QUANTIZED = frozenset({"DequantizeLinear", "MatMulNBits", "QuantizeLinear"})


def follow(trail: Trail, value: ir.Value, axis: int) -> None:
    """Follow a stream from one of its values.

    Raises:
        Refusal: It cannot be followed.
    """
    trail.reach(value, Spot(axis))
    while trail.pending:
        _visit(trail, trail.pending.pop())


def _visit(trail: Trail, value: ir.Value) -> None:
    if value.dtype is not None and value.dtype != ir.DataType.FLOAT:
        raise Refusal("type", value.name or "?")
    spot, producer = trail.spots[value], value.producer()
    if producer is None or not _carries(trail, producer, spot):
        _enter(trail, value, spot)
    if value.is_graph_output():
        trail.shown.append(value)
    for use in value.uses():
        readers = trail.reads if _read(trail, use.node, use.idx, spot) else trail.others
        readers.setdefault(value, []).append((use.node, use.idx))


def _enter(trail: Trail, value: ir.Value, spot: Spot) -> None:
    producer = value.producer()
    if producer is not None and _is_quantized(producer):
        raise refuse("quantized", producer)
    rank = trail.shapes.rank(value)
    if rank is None or spot.axis != rank - 1 or spot.scale is not None:
        raise Refusal("shape", value.name or "?")
    trail.entries.append(value)


def _is_quantized(node: ir.Node) -> bool:
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    return node.op_type in _QUANTIZED or producer_of(weight, "DequantizeLinear") is not None


def _carries(trail: Trail, node: ir.Node, spot: Spot) -> bool:
    """Whether a node gives Q times its result where its operands are taken into the stream.

    Args:
        spot: Of its result.
    """
    known = trail.carried.get(node)
    if known is None:
        known = trail.carried[node] = made(trail, node, spot)
    return known


def _read(trail: Trail, node: ir.Node, position: int, spot: Spot) -> bool:
    """Follow a value into a node that reads it; False where that is a reader of another kind."""
    if node.op_type == "Shape" and node.domain == "":
        return True
    if node.graph is not trail.graph or node.domain != "":
        return False
    if is_stream_norm(node, trail.width) and position == 0:
        trail.norms.append(node)
        return True
    found = _passed(trail, node, position, spot)
    if found is None or not _carries(trail, node, found):
        return False
    for output in node.outputs:
        trail.reach(output, found)
    return True


def _passed(trail: Trail, node: ir.Node, position: int, spot: Spot) -> Spot | None:
    """Return where the results of a node have the stream if an input has; None: not."""
    if is_layout(node):
        axis = axis_after(node, spot.axis, trail.shapes) if position == 0 else None
        return None if axis is None else Spot(axis, spot.scale)
    rank, own = trail.shapes.rank(node.outputs[0]), trail.shapes.rank(node.inputs[position])
    if rank is None or own is None:
        return None
    known = trail.spots.get(node.outputs[0])
    if known is not None and node.op_type in _JOINS:
        return known
    if node.op_type in _SUMS and spot.scale is None:
        return Spot(spot.axis + rank - own)
    if node.op_type == "Mul" or (node.op_type == "Div" and position == 0):
        axis = spot.axis + rank - own
        narrow = trail.is_narrow(node.inputs[1 - position], axis, rank)
        return Spot(axis, spot.scale) if narrow else None
    return None
