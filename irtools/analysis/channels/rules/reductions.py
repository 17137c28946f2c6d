"""Operators that look at a whole axis: reductions, softmax, normalisation."""

from __future__ import annotations

from irtools.analysis.channels.groups import Trace
from irtools.analysis.channels.rules.elementwise import unary
from irtools.analysis.channels.rules.port import Port, constant_axes

__all__ = ["normalization", "reduce", "softmax"]


def softmax(port: Port, trace: Trace) -> None:
    rank = trace.shapes.rank(port.value)
    default = -1 if (port.node.version or 13) >= 13 else 1
    axis = port.node.attributes.get_int("axis", default)
    if rank is None or axis % rank == port.axis or (default == 1 and axis % rank < port.axis):
        trace.block(port.node, "it normalises over the channels")
        return
    trace.is_attention = True
    unary(port, trace)


def normalization(port: Port, trace: Trace) -> None:
    rank = trace.shapes.rank(port.value)
    axis = port.node.attributes.get_int("axis", -1)
    if rank is None or port.axis >= axis % rank or (port.is_input and port.position > 0):
        trace.block(port.node, "it normalises over the channels")
    else:
        unary(port, trace)


def reduce(port: Port, trace: Trace) -> None:
    x, y = port.node.inputs[0], port.node.outputs[0]
    rank = trace.shapes.rank(x)
    axes = constant_axes(port, trace)
    if x is None or rank is None or axes is None or not axes:
        trace.block(port.node, "its axes are not known")
        return
    places = {a % rank for a in axes}
    keep = port.node.attributes.get_int("keepdims", 1)
    order = [i for i in range(rank) if keep or i not in places]
    axis = port.axis if port.is_input else order[port.axis]
    if axis in places:
        trace.block(port.node, "it sums over the channels")
        return
    trace.couple(x, axis, port.map)
    trace.couple(y, order.index(axis), port.map)
