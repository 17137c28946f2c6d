"""What makes channels of a weight's columns, and what sums them up over its rows.

(x / s) (s W) = x W        the input is divided: rows are multiplied
x (W / s)     = y / s      the output is divided: columns are, and the bias
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from irtools.analysis.scales.trace import Port, ScaledProduct, Trace
from irtools.analysis.scales.units import Layout, aligned
from irtools.editing import constant_of, producer_of

__all__ = ["batch_norm", "conv", "conv_transpose", "gemm", "matmul"]


def matmul(port: Port, trace: Trace) -> None:
    """MatMul: by a constant [K, N], or of two activations, of which the right one carries."""
    node = port.node
    holder, position, turned = _stored(node)
    weight = constant_of(holder.inputs[position])
    if weight is None and producer_of(node.inputs[1], "DequantizeLinear") is not None:
        raise port.refuse("type")
    if weight is None or len(weight.shape) != 2:
        _two_activations(port, trace)
        return
    channels = _last(port, trace)
    if port.is_input:
        rows = channels[None, :] if turned else channels[:, None]
        product = ScaledProduct(node, holder, position, channels, -1)
        trace.multiply(port, product, rows)
    else:
        columns = channels[:, None] if turned else channels[None, :]
        trace.scale(holder, position, columns, -1)


def _stored(node: ir.Node) -> tuple[ir.Node, int, bool]:
    """Return who reads the stored weight of a MatMul, as which input, and whether it is turned."""
    turn = producer_of(node.inputs[1], "Transpose")
    if turn is None or constant_of(turn.inputs[0]) is None:
        return node, 1, False
    perm = turn.attributes.get_ints("perm", None)
    return (turn, 0, True) if perm is None or tuple(perm) == (1, 0) else (node, 1, False)


def _two_activations(port: Port, trace: Trace) -> None:
    """P @ V: a scale of the columns of V is one of the columns of the result."""
    node, layout = port.node, port.layout
    if port.is_input and port.position == 0:
        raise port.refuse("product")
    ranks = [trace.shapes.rank(value) for value in (*node.inputs, node.outputs[0])]
    if any(rank is None or rank < 2 for rank in ranks) or layout.shape[-2] != 1:
        raise port.refuse("shape")
    trace.choices.setdefault(node, 1)
    if port.is_input:
        trace.couple(node.outputs[0], layout)
        return
    rank = ranks[1] or 0
    for axis in range(layout.ndim - rank):
        layout = trace.units.reduce(layout, axis)
    found = aligned(layout, rank)
    if found is None:
        raise port.refuse("shape")
    trace.operand(port, 1, found)


def gemm(port: Port, trace: Trace) -> None:
    node = port.node
    if constant_of(node.inputs[1]) is None or (port.is_input and port.position > 0):
        raise port.refuse("product")
    if node.attributes.get_int("transA", 0):
        raise port.refuse("shape")
    turned = node.attributes.get_int("transB", 0) == 1
    channels = _last(port, trace)
    if port.is_input:
        rows = channels[None, :] if turned else channels[:, None]
        trace.multiply(port, ScaledProduct(node, node, 1, channels, -1), rows)
        return
    trace.scale(node, 1, channels[:, None] if turned else channels[None, :], -1)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        trace.scale(node, 2, channels, -1)


def conv(port: Port, trace: Trace) -> None:
    """Conv: the input channels of each group, and its own output channels."""
    node = port.node
    weight = constant_of(node.inputs[1])
    if weight is None or (port.is_input and port.position > 0):
        raise port.refuse("product")
    channels = _channels(port)
    shape, groups = tuple(weight.shape.numpy()), node.attributes.get_int("group", 1)
    taps = (1,) * (len(shape) - 2)
    if port.is_input:
        rows = channels.reshape(groups, 1, shape[1])
        per_group = np.broadcast_to(rows, (groups, shape[0] // groups, shape[1]))
        layout = (
            per_group.reshape(shape[0], shape[1], *taps)
            if groups > 1
            else rows.reshape(1, shape[1], *taps)
        )
        trace.multiply(port, ScaledProduct(node, node, 1, channels, 1), layout)
        return
    trace.scale(node, 1, channels.reshape(shape[0], 1, *taps), -1)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        trace.scale(node, 2, channels, -1)


def conv_transpose(port: Port, trace: Trace) -> None:
    """ConvTranspose [I, O, ..] in one group."""
    node = port.node
    weight = constant_of(node.inputs[1])
    if weight is None or (port.is_input and port.position > 0):
        raise port.refuse("product")
    if node.attributes.get_int("group", 1) != 1:
        raise port.refuse("shape")
    channels = _channels(port)
    taps = (1,) * (len(weight.shape) - 2)
    if port.is_input:
        layout = channels.reshape(-1, 1, *taps)
        trace.scale(node, 1, layout, 1)
        return
    trace.scale(node, 1, channels.reshape(1, -1, *taps), -1)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        trace.scale(node, 2, channels, -1)


def batch_norm(port: Port, trace: Trace) -> None:
    """(x - mean) gain / sqrt(var + eps) + bias: gain and bias, or gain and mean."""
    channels = _channels(port)
    node = port.node
    trains = node.attributes.get_int("training_mode", 0)
    if trains or (port.is_input and port.position > 0) or (not port.is_input and port.position > 0):
        raise port.refuse("operator")
    trace.scale(node, 1, channels, 1 if port.is_input else -1)
    trace.scale(node, 3 if port.is_input else 2, channels, -1)


def _last(port: Port, trace: Trace) -> Layout:
    """Return the units of the last axis, [K]; no other axis may have any."""
    if any(n > 1 for n in port.layout.shape[:-1]):
        raise port.refuse("shape")
    shape = trace.shapes.shape(port.value)
    size = shape[-1] if shape else None
    if port.layout.shape[-1] != size:
        raise port.refuse("shape")
    return port.layout.reshape(-1)


def _channels(port: Port) -> Layout:
    """Return the units of axis 1, [C]; no other axis may have any."""
    shape = port.layout.shape
    if len(shape) < 2 or any(n > 1 for axis, n in enumerate(shape) if axis != 1):
        raise port.refuse("shape")
    return port.layout.reshape(-1)
