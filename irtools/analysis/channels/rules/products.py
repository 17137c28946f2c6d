"""MatMul and Gemm: what computes units, and what sums them up."""

from __future__ import annotations

from irtools.analysis.channels.groups import Trace
from irtools.analysis.channels.rules.port import Port
from irtools.editing import weight_of
from irtools.operators import bias_input

__all__ = ["add_bias", "gemm", "matmul"]


def matmul(port: Port, trace: Trace) -> None:
    a, b = port.other(0), port.other(1)
    assert a is not None and b is not None
    ranks = [trace.shapes.rank(v) for v in (a, b, port.node.outputs[0])]
    if any(r is None or r < 2 for r in ranks):
        trace.block(port.node, "an operand is a vector or its rank is not known")
        return
    back = port.axis - (trace.shapes.rank(port.value) or 0)
    for value, place in _matmul_axes(port, back):
        _couple_back(port, trace, value, place)


def _matmul_axes(port: Port, back: int) -> list[tuple[int, int]]:
    """List the (port, axis from the end) that an axis of MatMul is coupled to; 2 is Y."""
    here = port.position if port.is_input else 2
    match here, back:
        case (0, -1) | (1, -2):
            return [(0, -1), (1, -2)]
        case (0, -2) | (2, -2):
            return [(0, -2), (2, -2)]
        case (1, -1) | (2, -1):
            return [(1, -1), (2, -1)]
    return [(0, back), (1, back), (2, back)]


def _couple_back(port: Port, trace: Trace, place: int, back: int) -> None:
    node = port.node
    value = node.outputs[0] if place == 2 else node.inputs[place]
    assert value is not None
    shape = trace.shapes.shape(value) or ()
    axis = len(shape) + back
    if axis < 0 or (back < -2 and shape[axis] == 1):
        return
    if place < 2 and weight_of(value) is not None:
        if len(shape) != 2 and back < -2:
            trace.add_member(node, place, axis, port.map, "along")
            return
        if len(shape) != 2:
            trace.block(node, f"constant operand {value.name} has rank {len(shape)}")
            return
        contracted = (place, back) in ((0, -1), (1, -2))
        data_rank = trace.shapes.rank(node.inputs[1 - place]) or 0
        data_axis = data_rank - (1 if place == 1 else 2)
        role: str = "in" if contracted else "out"
        trace.add_member(node, place, axis, port.map, role, data_axis if contracted else None)  # type: ignore[arg-type]
    else:
        trace.couple(value, axis, port.map)


def gemm(port: Port, trace: Trace) -> None:
    node = port.node
    a, b, c = port.other(0), port.other(1), port.other(2)
    attributes = node.attributes
    if a is None or weight_of(b) is None or attributes.get_int("transA", 0) != 0:
        trace.block(node, "its weight is not constant or its data is transposed")
        return
    transposed = attributes.get_int("transB", 0) != 0
    if port.is_input and port.position > 0:
        trace.block(node, "its channels are a weight or a bias here")
    elif port.axis == 0:
        trace.couple(a, 0, port.map)
        trace.couple(node.outputs[0], 0, port.map)
        if c is not None and (weight_of(c) is None or (trace.shapes.rank(c) or 0) > 1):
            trace.block(node, "its bias may have rows")
    elif port.is_input:
        trace.add_member(node, 1, 1 if transposed else 0, port.map, "in", 1)
    else:
        trace.couple(node.outputs[0], 1, port.map)
        trace.add_member(node, 1, 0 if transposed else 1, port.map, "out")
        add_bias(port, trace)


def add_bias(port: Port, trace: Trace) -> None:
    """The bias of a root is cut with its channels."""
    position = bias_input(port.node)
    bias = None if position is None else port.other(position)
    if position is None or bias is None:
        return
    tensor = weight_of(bias)
    if tensor is None:
        trace.block(port.node, f"bias {bias.name} is not constant")
    elif len(tensor.shape) and tensor.shape[-1] != 1:
        trace.add_member(port.node, position, len(tensor.shape) - 1, port.map, "along")
