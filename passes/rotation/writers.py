"""What gives a stream its values: how each operator takes a rotation of its result up.

A rule is called with a node whose result has the stream. It takes operands into the stream and
constants as writers, or returns False and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from irtools.editing import array_of, constant_of
from irtools.passes.rotation.layout import axis_before, is_layout
from irtools.passes.rotation.stream import Writer
from irtools.passes.rotation.trail import Spot, Trail

__all__ = ["is_plain_gemm", "made"]


def made(trail: Trail, node: ir.Node, spot: Spot) -> bool:
    """Follow a node back from its result; False where it takes no rotation up.

    Args:
        spot: Where the result has the stream.
    """
    if node.domain != "" or node.graph is not trail.graph:
        return False
    if is_layout(node) and not (node.op_type == "Gather" and constant_of(node.inputs[0])):
        axis = axis_before(node, spot.axis, trail.shapes)
        return axis is not None and _operands(trail, node, (0,), spot, {0: axis})
    rule = _MADE.get(node.op_type)
    return rule is not None and rule(trail, node, spot)


def is_plain_gemm(node: ir.Node) -> bool:
    """Whether a Gemm is  A B + C  or  A B^T + C."""
    return (
        node.attributes.get_float("alpha", 1.0) == 1
        and node.attributes.get_float("beta", 1.0) == 1
        and node.attributes.get_int("transA", 0) == 0
    )


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
    """Patches: one group, so that output channels may be mixed."""
    alone = node.attributes.get_int("group", 1) == 1
    return alone and spot.axis == 1 and _with_bias(trail, node, 0, spot)


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
