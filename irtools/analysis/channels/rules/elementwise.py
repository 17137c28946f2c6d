"""Operators that work element by element, with broadcasting."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from irtools.analysis.channels.groups import GroupAxis, TakeEdit, Trace
from irtools.analysis.channels.index_map import IndexMap
from irtools.analysis.channels.rules.port import WEIGHTED_OPS, Port
from irtools.analysis.dims import Dim
from irtools.editing import weight_of

__all__ = ["couple_or_take", "elementwise", "unary"]

_MAX_ANCESTORS = 200
"""Biases and masks are made by a few dozen nodes."""


def unary(port: Port, trace: Trace) -> None:
    """y = f(x) per element; other inputs are scalars."""
    if port.is_input and port.position > 0:
        trace.block(port.node, "its channels are a parameter here")
        return
    for value in (port.node.inputs[0], port.node.outputs[0]):
        assert value is not None
        trace.couple(value, port.axis, port.map)
    for extra in port.node.outputs[1:]:
        if extra.uses() or extra.is_graph_output():
            trace.block(port.node, f"second output {extra.name} is used")


def elementwise(port: Port, trace: Trace) -> None:
    """Broadcasting operators: the axis counted from the end is coupled where it is not 1."""
    shape = trace.shapes.shape(port.value)
    if shape is None:
        trace.block(port.node, f"the rank of {port.value.name} is not known")
        return
    back = port.axis - len(shape)
    size = shape[port.axis]
    for position, value in enumerate(port.node.inputs):
        if value is not None:
            _broadcast(port, trace, value, position, back, size)
    _broadcast(port, trace, port.node.outputs[0], -1, back, size)


def _broadcast(
    port: Port, trace: Trace, value: ir.Value, position: int, back: int, size: Dim
) -> None:
    shape = trace.shapes.shape(value)
    if shape is None:
        trace.block(port.node, f"the rank of {value.name} is not known")
        return
    axis = len(shape) + back
    if axis < 0 or shape[axis] == 1:
        return
    if position >= 0 and weight_of(value) is not None:
        trace.add_member(port.node, position, axis, port.map, "along")
    elif shape[axis] != size:
        trace.block(port.node, f"axis {axis} of {value.name} may or may not be broadcast")
    elif position >= 0:
        couple_or_take(port.node, position, axis, port.map, trace)
    else:
        trace.couple(value, axis, port.map)


def couple_or_take(
    node: ir.Node, position: int, axis: int, mapping: IndexMap, trace: Trace
) -> None:
    """Couple an input that has the units, or take them from it where it owes them to no weight."""
    value = node.inputs[position]
    assert value is not None
    shape = trace.shapes.shape(value) or ()
    whole = not mapping.offset and mapping.size is not None and shape[axis] == mapping.size
    if whole and GroupAxis(value, axis) not in trace.slots and _is_free(value, axis, trace):
        trace.take_edits[node, position, axis] = TakeEdit(node, position, axis, mapping)
    else:
        trace.couple(value, axis, mapping)


def _is_free(value: ir.Value, axis: int, trace: Trace) -> bool:
    """Whether no product with a weight comes before a value: a mask, or biases from a table.

    What is only expanded to the units is followed instead: it shrinks for nothing.
    """
    producer = value.producer()
    if producer is not None and producer.op_type == "Expand":
        rank, before = len(trace.shapes.shape(value) or ()), trace.shapes.shape(producer.inputs[0])
        if before is None or axis < rank - len(before) or before[axis - rank] == 1:
            return False
    seen: set[ir.Node] = set()
    pending = _producers([value])
    while pending:
        node = pending.pop()
        if node in seen or node.op_type == "Shape":
            # A number of heads that is read and written elsewhere blocks the group by itself.
            continue
        seen.add(node)
        if node.op_type in WEIGHTED_OPS or len(seen) > _MAX_ANCESTORS:
            return False
        pending.extend(_producers(node.inputs))
    return True


def _producers(values: Iterable[ir.Value | None]) -> list[ir.Node]:
    found = (value.producer() for value in values if value is not None)
    return [node for node in found if node is not None]
