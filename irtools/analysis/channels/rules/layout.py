"""Operators that move axes, add or drop them, or pick along them."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from irtools.analysis.channels.groups import Trace
from irtools.analysis.channels.rules.elementwise import unary
from irtools.analysis.channels.rules.port import Port, constant_axes
from irtools.analysis.channels.rules.sizes import edit_target
from irtools.editing import weight_of

__all__ = [
    "expand",
    "gather",
    "gather_elements",
    "slice_rule",
    "squeeze",
    "tile",
    "transpose",
    "unsqueeze",
]


def transpose(port: Port, trace: Trace) -> None:
    rank = trace.shapes.rank(port.value)
    if rank is None:
        trace.block(port.node, f"the rank of {port.value.name} is not known")
        return
    perm = list(port.node.attributes.get_ints("perm", tuple(reversed(range(rank)))))
    x = port.node.inputs[0]
    assert x is not None
    before, after = (
        (port.axis, perm.index(port.axis)) if port.is_input else (perm[port.axis], port.axis)
    )
    trace.couple(x, before, port.map)
    trace.couple(port.node.outputs[0], after, port.map)


def squeeze(port: Port, trace: Trace) -> None:
    _stretch(port, trace, port.node.inputs[0], port.node.outputs[0])


def unsqueeze(port: Port, trace: Trace) -> None:
    _stretch(port, trace, port.node.outputs[0], port.node.inputs[0])


def _stretch(port: Port, trace: Trace, wide: ir.Value | None, narrow: ir.Value | None) -> None:
    axes = constant_axes(port, trace)
    rank = trace.shapes.rank(wide)
    if wide is None or narrow is None or axes is None or rank is None or not axes:
        trace.block(port.node, "its axes are not known")
        return
    places = {a % rank for a in axes}
    order = [i for i in range(rank) if i not in places]
    axis = port.axis if port.value is wide else order[port.axis]
    if axis in places:
        trace.block(port.node, "it drops the axis of the channels")
        return
    trace.couple(wide, axis, port.map)
    trace.couple(narrow, order.index(axis), port.map)


def gather(port: Port, trace: Trace) -> None:
    data, y = port.other(0), port.node.outputs[0]
    ranks = [trace.shapes.rank(v) for v in (data, port.other(1))]
    if data is None or ranks[0] is None or ranks[1] is None or (port.is_input and port.position):
        trace.block(port.node, "ranks are not known, or its channels are indices")
        return
    axis = port.node.attributes.get_int("axis", 0) % ranks[0]
    grown = ranks[1] - 1
    before = port.axis if port.is_input or port.axis < axis else port.axis - grown
    if before == axis or (not port.is_input and axis <= port.axis < axis + ranks[1]):
        trace.block(port.node, "it picks single channels")
        return
    if weight_of(data) is not None:
        trace.block(port.node, f"channels are columns of the table {data.name}")
        return
    trace.couple(data, before, port.map)
    trace.couple(y, before if before < axis else before + grown, port.map)


def slice_rule(port: Port, trace: Trace) -> None:
    rank = trace.shapes.rank(port.value)
    axes = trace.shapes.integers(port.other(3)) if port.other(3) is not None else None
    known = axes is not None and rank is not None and all(isinstance(a, int) for a in axes)
    if not known or port.position > 0 or axes is None or rank is None:
        trace.block(port.node, "its axes are not known")
    elif port.axis in {int(a) % rank for a in axes}:
        trace.block(port.node, "it cuts through the channels")
    else:
        unary(port, trace)


def expand(port: Port, trace: Trace) -> None:
    """The axis counted from the end is coupled where the data has more than one element on it."""
    node = port.node
    x, y = node.inputs[0], node.outputs[0]
    shapes = [trace.shapes.shape(v) for v in (x, y)]
    if x is None or shapes[0] is None or shapes[1] is None or (port.is_input and port.position):
        trace.block(node, "its shapes are not known, or its channels are a shape here")
        return
    grown = len(shapes[1]) - len(shapes[0])
    after = port.axis + grown if port.is_input else port.axis
    before = after - grown
    size = shapes[1][after]
    if before >= 0 and shapes[0][before] != 1:
        if shapes[0][before] != size:
            trace.block(node, f"axis {before} of {x.name} may or may not be broadcast")
            return
        if weight_of(x) is not None:
            trace.add_member(node, 0, before, port.map, "along")
        else:
            trace.couple(x, before, port.map)
    trace.couple(y, after, port.map)
    edit_target(node, trace, after, port.map)


def tile(port: Port, trace: Trace) -> None:
    """Repeating the axis of the channels repeats their whole pattern."""
    node = port.node
    x, y = node.inputs[0], node.outputs[0]
    shape, repeats = trace.shapes.shape(x), trace.shapes.integers(port.other(1))
    if x is None or shape is None or repeats is None or (port.is_input and port.position > 0):
        trace.block(node, "how often it repeats is not known")
        return
    times, size = repeats.reshape(-1)[port.axis], shape[port.axis]
    before = port.map if port.is_input or times == 1 else replace(port.map, outer=1)
    if before.size != size and times != 1:
        trace.block(node, "it repeats other channels next to these")
        return
    outer = before.outer if times == 1 else times if isinstance(times, int) else None
    trace.couple(x, port.axis, before)
    trace.couple(y, port.axis, replace(before, outer=outer))


def gather_elements(port: Port, trace: Trace) -> None:
    """Data, indices and result share every axis but the one that is picked along."""
    node = port.node
    values = [*node.inputs[:2], node.outputs[0]]
    shapes = [trace.shapes.shape(v) for v in values]
    if any(s is None for s in shapes):
        trace.block(node, "its shapes are not known")
        return
    sizes = {s[port.axis] for s in shapes if s is not None}
    if port.axis == node.attributes.get_int("axis", 0) % len(shapes[0] or ()) or len(sizes) > 1:
        trace.block(node, "it picks single channels")
        return
    for position, value in enumerate(values):
        assert value is not None
        if position < 2 and weight_of(value) is not None:
            trace.add_member(node, position, port.axis, port.map, "along")
        else:
            trace.couple(value, port.axis, port.map)
