"""Operators that work element by element, with broadcasting."""

from __future__ import annotations

import onnx_ir as ir

from irtools.analysis.dims import Dim
from irtools.analysis.shapes import constant_of
from irtools.passes.pruning.groups import Trace
from irtools.passes.pruning.rules.port import Port

__all__ = ["elementwise", "unary"]


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
    if position >= 0 and constant_of(value) is not None:
        trace.add_member(port.node, position, axis, port.map, "along")
    elif shape[axis] == size:
        trace.couple(value, axis, port.map)
    else:
        trace.block(port.node, f"axis {axis} of {value.name} may or may not be broadcast")
