"""Operators that work element by element.

f(x / s) = f(x) / s   for s > 0:  Relu, LeakyRelu, PRelu, Abs, Neg, max(x, 0)
x / s + c / s         both operands of a sum are divided
(x / s) y             one operand of a product is, and a constant takes it up
"""

from __future__ import annotations

import numpy as np

from irtools.analysis.scales.trace import FLOATS, Port, Trace
from irtools.analysis.scales.units import Layout, aligned
from irtools.editing import array_of, constant_of

__all__ = ["add", "clip", "divide", "homogeneous", "multiply", "same", "select"]


def same(port: Port, trace: Trace) -> None:
    """The first input and the first output are divided alike."""
    if port.position > 0:
        raise port.refuse("operator")
    trace.couple(port.node.inputs[0], port.layout)
    trace.couple(port.node.outputs[0], port.layout)


def homogeneous(port: Port, trace: Trace) -> None:
    """f(s x) = s f(x) for s > 0; what else is read does not carry channels' scales."""
    if port.node.op_type == "Cast" and port.node.outputs[0].dtype not in FLOATS:
        raise port.refuse("operator")
    same(port, trace)


def clip(port: Port, trace: Trace) -> None:
    """Bounds of 0 and none at all; any other bound would have to be divided, too."""
    for index, value in enumerate(port.node.inputs[1:]):
        bound = None if value is None else array_of(value)
        if value is not None and (bound is None or (bound != 0).any()):
            open_end = bound is not None and np.all(bound == _OPEN[index])
            if not open_end:
                raise port.refuse("operator")
    if {"min", "max"} & set(port.node.attributes):
        raise port.refuse("operator")
    same(port, trace)


_OPEN = (-np.inf, np.inf)


def add(port: Port, trace: Trace) -> None:
    """Add, Sub and Sum: every operand."""
    layout = _of_result(port, trace)
    trace.couple(port.node.outputs[0], layout)
    for position in range(len(port.node.inputs)):
        trace.operand(port, position, layout)


def multiply(port: Port, trace: Trace) -> None:
    """Mul: a constant with all the channels takes the scale up, else one operand carries it."""
    node = port.node
    layout = _of_result(port, trace)
    constants = [i for i, value in enumerate(node.inputs) if constant_of(value) is not None]
    for position in constants:
        if _fills(port, position, layout, trace):
            trace.scale(node, position, layout, 1 if port.is_input else -1)
            return
    _carried(port, trace, layout, tuple(i for i in (0, 1) if i not in constants))


def divide(port: Port, trace: Trace) -> None:
    """Div: its numerator; a constant denominator with all the channels takes the scale up."""
    node = port.node
    layout = _of_result(port, trace)
    if port.is_input and port.position == 1:
        raise port.refuse("operator")
    for position, power in ((1, 1), (0, -1)):
        if constant_of(node.inputs[position]) is None or (port.is_input and position == 0):
            continue
        if _fills(port, position, layout, trace):
            trace.scale(node, position, layout, -power if port.is_input else power)  # type: ignore[arg-type]
            return
    _carried(port, trace, layout, (0,))


def select(port: Port, trace: Trace) -> None:
    """Where: what is selected is divided; zeros and infinities stay."""
    if port.is_input and port.position == 0:
        raise port.refuse("operator")
    layout = _of_result(port, trace)
    trace.couple(port.node.outputs[0], layout)
    for position in (1, 2):
        array = array_of(port.node.inputs[position])
        if array is None or not np.all((array == 0) | np.isinf(array)):
            trace.operand(port, position, layout)


def _carried(port: Port, trace: Trace, layout: Layout, choices: tuple[int, ...]) -> None:
    node = port.node
    if node.inputs[0] is node.inputs[1] or not choices:
        raise port.refuse("product")
    if port.is_input:
        trace.carry(port)
        trace.couple(node.outputs[0], layout)
        return
    position = trace.chosen(port, choices)
    trace.operand(port, position, layout)


def _of_result(port: Port, trace: Trace) -> Layout:
    """Return the layout at the rank of the result."""
    rank = trace.shapes.rank(port.node.outputs[0])
    found = None if rank is None else aligned(port.layout, rank)
    if found is None:
        raise port.refuse("shape")
    return found


def _fills(port: Port, position: int, layout: Layout, trace: Trace) -> bool:
    """Whether a constant has an element of its own for every unit."""
    shape = trace.shapes.shape(port.node.inputs[position])
    if shape is None or len(shape) > layout.ndim:
        return False
    own = (1,) * (layout.ndim - len(shape)) + tuple(shape)
    return all(units in (1, size) for units, size in zip(layout.shape, own, strict=True))
