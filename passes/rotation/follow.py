"""Following a residual stream from a normalization to all that writes and reads it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import array_of, constant_of, producer_of
from irtools.passes.rotation.layout import axis_after, axis_before, is_layout
from irtools.passes.rotation.stream import (
    Refusal,
    Use,
    Writer,
    is_stream_norm,
    refuse,
)

__all__ = ["Spot", "Trail", "follow", "is_plain_gemm"]

_SUMS = frozenset({"Add", "Concat", "Sub", "Sum", "Where"})
_QUANTIZED = frozenset({"DequantizeLinear", "MatMulNBits", "QuantizeLinear"})


@dataclass(frozen=True, eq=False)
class Spot:
    """Where a value has the stream.

    Attributes:
        axis: Of its channels.
        scale: What multiplies it on its way into the stream, [D]; None for 1.
    """

    axis: int
    scale: np.ndarray | None = None


@dataclass
class Trail:
    """A stream while it is followed.

    Attributes:
        shapes: Of the model.
        graph: Its main graph.
        width: D.
        kept: Constants that must stay as they are.
        spots: Values that have the stream.
        writers: Constants that take the rotation up.
        scales: Layer scales that go.
        entries: Values that are rotated while the model runs.
        norms: Normalizations that read it.
        reads: Values to those readers that follow the stream.
        others: Values to their other readers.
        carried: Nodes to whether they pass it on.
        shown: Values of it that are outputs of the model.
    """

    shapes: SymbolicShapes
    graph: ir.Graph
    width: int
    kept: Collection[ir.Value] = ()
    spots: dict[ir.Value, Spot] = field(default_factory=dict)
    writers: list[Writer] = field(default_factory=list)
    scales: list[ir.Node] = field(default_factory=list)
    entries: list[ir.Value] = field(default_factory=list)
    norms: list[ir.Node] = field(default_factory=list)
    reads: dict[ir.Value, list[Use]] = field(default_factory=dict)
    others: dict[ir.Value, list[Use]] = field(default_factory=dict)
    carried: dict[ir.Node, bool] = field(default_factory=dict)
    shown: list[ir.Value] = field(default_factory=list)
    pending: list[ir.Value] = field(default_factory=list)

    def reach(self, value: ir.Value, spot: Spot) -> None:
        """Note that a value has the stream."""
        known = self.spots.get(value)
        if known is None:
            self.spots[value] = spot
            self.pending.append(value)
        elif known.axis != spot.axis or known.scale is not spot.scale:
            raise Refusal("shape", value.name or "?")

    def writer(self, node: ir.Node, position: int, axis: int, spot: Spot) -> Writer | None:
        """Return the constant at an input if it can take the rotation up along an axis."""
        value = node.inputs[position]
        tensor = constant_of(value)
        if value is None or tensor is None or value in self.kept or value.producer() is not None:
            return None
        if tensor.dtype != ir.DataType.FLOAT or tensor.shape[axis] != self.width:
            return None
        return Writer(node, position, axis, spot.scale)

    def is_narrow(self, value: ir.Value | None, axis: int, rank: int) -> bool:
        """Whether a factor has one element along the channels of what it multiplies."""
        shape = self.shapes.shape(value)
        if shape is None:
            return False
        place = axis - (rank - len(shape))
        return place < 0 or shape[place] == 1


def follow(trail: Trail, value: ir.Value, axis: int) -> None:
    """Follow a stream from one of its values.

    Raises:
        Refusal: It cannot be followed.
    """
    trail.reach(value, Spot(axis))
    while trail.pending:
        _visit(trail, trail.pending.pop())


def is_plain_gemm(node: ir.Node) -> bool:
    """Whether a Gemm is  A B + C  or  A B^T + C."""
    return (
        node.attributes.get_float("alpha", 1.0) == 1
        and node.attributes.get_float("beta", 1.0) == 1
        and node.attributes.get_int("transA", 0) == 0
    )


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
        known = trail.carried[node] = _made(trail, node, spot)
    return known


def _made(trail: Trail, node: ir.Node, spot: Spot) -> bool:
    if node.domain != "" or node.graph is not trail.graph:
        return False
    if is_layout(node) and not (node.op_type == "Gather" and constant_of(node.inputs[0])):
        axis = axis_before(node, spot.axis, trail.shapes)
        return axis is not None and _operands(trail, node, (0,), spot, {0: axis})
    rule = _MADE.get(node.op_type)
    return rule is not None and rule(trail, node, spot)


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
    if known is not None and node.op_type in _MADE:
        return known
    if node.op_type in _SUMS and spot.scale is None:
        return Spot(spot.axis + rank - own)
    if node.op_type == "Mul" or (node.op_type == "Div" and position == 0):
        axis = spot.axis + rank - own
        narrow = trail.is_narrow(node.inputs[1 - position], axis, rank)
        return Spot(axis, spot.scale) if narrow else None
    return None


def _operands(
    trail: Trail,
    node: ir.Node,
    positions: Collection[int],
    spot: Spot,
    axes: Mapping[int, int] | None = None,
) -> bool:
    """Take operands into the stream, constants as writers; False, and none is, if one cannot be."""
    writers, values = [], []
    rank = trail.shapes.rank(node.outputs[0]) or 0
    for position in positions:
        operand = node.inputs[position]
        own = trail.shapes.rank(operand)
        if operand is None or own is None:
            return False
        axis = axes[position] if axes is not None else spot.axis - (rank - own)
        shape = trail.shapes.shape(operand) or ()
        if axis < 0 or shape[axis] != trail.width:
            return False
        if constant_of(operand) is None:
            values.append((operand, Spot(axis, spot.scale)))
            continue
        writer = trail.writer(node, position, axis, spot)
        if writer is None:
            return False
        writers.append(writer)
    trail.writers += writers
    for operand, place in values:
        trail.reach(operand, place)
    return True


def _sum(trail: Trail, node: ir.Node, spot: Spot) -> bool:
    return _operands(trail, node, range(len(node.inputs)), spot)


def _where(trail: Trail, node: ir.Node, spot: Spot) -> bool:
    rank = trail.shapes.rank(node.outputs[0]) or 0
    narrow = trail.is_narrow(node.inputs[0], spot.axis, rank)
    return narrow and _operands(trail, node, (1, 2), spot)


def _concat(trail: Trail, node: ir.Node, spot: Spot) -> bool:
    rank = trail.shapes.rank(node.outputs[0]) or 1
    if node.attributes.get_int("axis", 0) % rank == spot.axis:
        return False
    return _operands(trail, node, range(len(node.inputs)), spot)


def _scaled(trail: Trail, node: ir.Node, spot: Spot) -> bool:
    """A factor for all channels, or a layer scale, which goes into what is before it."""
    rank = trail.shapes.rank(node.outputs[0]) or 0
    for position in (0, 1) if node.op_type == "Mul" else (0,):
        if trail.is_narrow(node.inputs[1 - position], spot.axis, rank):
            return _operands(trail, node, (position,), spot)
    return node.op_type == "Mul" and spot.scale is None and _layer_scale(trail, node, spot)


def _layer_scale(trail: Trail, node: ir.Node, spot: Spot) -> bool:
    if node.outputs[0].is_graph_output():
        return False
    for position in (0, 1):
        value, factor = node.inputs[position], array_of(node.inputs[1 - position])
        if value is None or factor is None or value.is_graph_output() or len(value.uses()) != 1:
            continue
        shape = trail.shapes.shape(value)
        if shape != trail.shapes.shape(node.outputs[0]) or factor.shape[-1:] != (trail.width,):
            continue
        if factor.size != trail.width or shape is None or spot.axis != len(shape) - 1:
            continue
        trail.reach(value, Spot(spot.axis, factor.reshape(-1).astype(np.float64)))
        trail.scales.append(node)
        return True
    return False


def _table(trail: Trail, node: ir.Node, spot: Spot) -> bool:
    """Rows of a table."""
    along, picked = node.attributes.get_int("axis", 0), trail.shapes.rank(node.inputs[1])
    if along != 0 or picked is None or spot.axis < picked:
        return False
    writer = trail.writer(node, 0, spot.axis - picked + 1, spot)
    return writer is not None and _take(trail, writer)


def _matmul(trail: Trail, node: ir.Node, spot: Spot) -> bool:
    rank, own = trail.shapes.rank(node.outputs[0]), trail.shapes.rank(node.inputs[1])
    if rank is None or spot.axis != rank - 1 or own != 2:
        return False
    writer = trail.writer(node, 1, 1, spot)
    return writer is not None and _take(trail, writer)


def _gemm(trail: Trail, node: ir.Node, spot: Spot) -> bool:
    if spot.axis != 1 or not is_plain_gemm(node):
        return False
    axis = 0 if node.attributes.get_int("transB", 0) else 1
    return _with_bias(trail, node, axis, spot)


def _conv(trail: Trail, node: ir.Node, spot: Spot) -> bool:
    return spot.axis == 1 and _with_bias(trail, node, 0, spot)


def _with_bias(trail: Trail, node: ir.Node, axis: int, spot: Spot) -> bool:
    writers = [trail.writer(node, 1, axis, spot)]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        rank = trail.shapes.rank(node.inputs[2]) or 0
        writers.append(trail.writer(node, 2, rank - 1, spot) if rank else None)
    found = [writer for writer in writers if writer is not None]
    return len(found) == len(writers) and _take(trail, *found)


def _take(trail: Trail, *writers: Writer) -> bool:
    trail.writers += writers
    return True


_MADE: Mapping[str, Callable[[Trail, ir.Node, Spot], bool]] = MappingProxyType(
    {
        "Add": _sum,
        "Concat": _concat,
        "Conv": _conv,
        "Div": _scaled,
        "Gather": _table,
        "Gemm": _gemm,
        "MatMul": _matmul,
        "Mul": _scaled,
        "Sub": _sum,
        "Sum": _sum,
        "Where": _where,
    }
)
