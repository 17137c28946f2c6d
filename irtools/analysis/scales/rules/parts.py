"""Operators that put parts together or take some: others keep their scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from irtools.analysis.scales.rules.elementwise import same
from irtools.analysis.scales.trace import Port, Trace
from irtools.analysis.scales.units import FIXED, Layout
from irtools.editing import constant_of

__all__ = ["concat", "gather", "slice_rule", "split"]


def concat(port: Port, trace: Trace) -> None:
    """Along its axis each input has its part; along any other all are divided alike."""
    node, layout = port.node, port.layout
    axis = node.attributes.get_int("axis", 0) % layout.ndim
    if layout.shape[axis] == 1:
        trace.couple(node.outputs[0], layout)
        for position in range(len(node.inputs)):
            trace.operand(port, position, layout)
        return
    parts = _parts(port, node.inputs, axis, trace)
    if port.is_input:
        whole = _whole(layout, axis, parts[-1].stop, parts[port.position])
        trace.couple(node.outputs[0], whole)
        return
    for position, places in enumerate(parts):
        part = layout.take(places, axis)
        if not trace.units.is_fixed(part):
            trace.operand(port, position, part)


def split(port: Port, trace: Trace) -> None:
    """Along its axis each output has its part; along any other all are divided alike."""
    node, layout = port.node, port.layout
    if port.is_input and port.position > 0:
        raise port.refuse("shape")
    axis = node.attributes.get_int("axis", 0) % layout.ndim
    if layout.shape[axis] == 1:
        trace.operand(port, 0, layout)
        for value in node.outputs:
            trace.couple(value, layout)
        return
    parts = _parts(port, node.outputs, axis, trace)
    if not port.is_input:
        trace.operand(port, 0, _whole(layout, axis, parts[-1].stop, parts[port.position]))
        return
    for value, places in zip(node.outputs, parts, strict=True):
        trace.couple(value, layout.take(places, axis))


def slice_rule(port: Port, trace: Trace) -> None:
    """Axes without units may be cut in any way; of one with units the numbers must be known."""
    node, layout = port.node, port.layout
    if len(node.inputs) < 3 or (port.is_input and port.position > 0):
        raise port.refuse("shape")
    axes = _integers(port, 3, trace)
    if axes is None and len(node.inputs) > 3 and node.inputs[3] is not None:
        raise port.refuse("shape")
    shape = trace.shapes.shape(node.inputs[0])
    starts = _integers(port, 1, trace)
    if axes is None:
        axes = list(range(layout.ndim if starts is None else len(starts)))
    places = [axis % layout.ndim for axis in axes]
    cut = [axis for axis in places if layout.shape[axis] > 1]
    if not cut:
        same(port, trace)
        return
    size = None if shape is None else shape[cut[0]]
    ends, steps = _integers(port, 2, trace), _integers(port, 4, trace)
    unknown = len(node.inputs) > 4 and node.inputs[4] is not None and steps is None
    if len(cut) > 1 or not isinstance(size, int) or starts is None or ends is None or unknown:
        raise port.refuse("shape")
    at = places.index(cut[0])
    picked = list(range(size))[starts[at] : ends[at] : 1 if steps is None else steps[at]]
    if port.is_input:
        trace.couple(node.outputs[0], layout.take(picked, cut[0]))
    else:
        trace.operand(port, 0, _whole(layout, cut[0], size, picked))


def gather(port: Port, trace: Trace) -> None:
    """What is picked lies on an axis without units; the columns of a table may have them."""
    node, layout = port.node, port.layout
    ranks = [trace.shapes.rank(value) for value in node.inputs]
    if ranks[0] is None or ranks[1] is None or (port.is_input and port.position > 0):
        raise port.refuse("shape")
    axis = node.attributes.get_int("axis", 0) % ranks[0]
    picked = layout.shape[axis : axis + (1 if port.is_input else ranks[1])]
    if any(n > 1 for n in picked):
        raise port.refuse("shape")
    grown = (1,) * (ranks[1] if port.is_input else 1)
    moved = layout.reshape((*layout.shape[:axis], *grown, *layout.shape[axis + len(picked) :]))
    if port.is_input:
        trace.couple(node.outputs[0], moved)
    elif constant_of(node.inputs[0]) is not None:
        trace.scale(node, 0, moved, -1)
    else:
        trace.couple(node.inputs[0], moved)


def _integers(port: Port, position: int, trace: Trace) -> list[int] | None:
    """Return the numbers of an input; None where it is absent or not known."""
    node = port.node
    value = node.inputs[position] if position < len(node.inputs) else None
    found = trace.shapes.integers(value)
    if found is None or not all(isinstance(n, int) for n in found.reshape(-1)):
        return None
    return [int(n) for n in found.reshape(-1)]


def _parts(port: Port, values: Sequence[ir.Value | None], axis: int, trace: Trace) -> list[range]:
    """Return the places of each part along an axis."""
    found: list[range] = []
    start = 0
    for value in values:
        shape = trace.shapes.shape(value)
        size = None if shape is None else shape[axis]
        if not isinstance(size, int):
            raise port.refuse("shape")
        found.append(range(start, start + size))
        start += size
    return found


def _whole(layout: Layout, axis: int, size: int, places: Sequence[int]) -> Layout:
    """Return the layout of a tensor of which a part has units, and the rest keeps its scale."""
    shape = list(layout.shape)
    shape[axis] = size
    whole = np.full(shape, FIXED, np.int64)
    np.moveaxis(whole, axis, 0)[list(places)] = np.moveaxis(layout, axis, 0)
    return whole
