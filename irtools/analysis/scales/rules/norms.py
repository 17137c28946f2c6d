"""Normalizations, whose gain and offset take scales up, and attention, which mixes positions."""

from __future__ import annotations

import numpy as np

from irtools.analysis.scales.trace import Port, Trace
from irtools.analysis.scales.units import Layout
from irtools.editing import constant_of

__all__ = ["attention", "gain_of_channels", "multi_head_attention", "normalize", "skip_normalize"]


def normalize(port: Port, trace: Trace) -> None:
    """LayerNormalization and RMSNormalization: x_hat * gain + offset over the last axes."""
    axis = port.node.attributes.get_int("axis", -1) % port.layout.ndim
    if port.is_input or port.position > 0:
        raise port.refuse("operator")
    _gain(port, trace, (1, 2), axis)


def skip_normalize(port: Port, trace: Trace) -> None:
    """com.microsoft: a residual and a normalization in one; the sum is the fourth output."""
    if port.is_input or port.position > 0:
        raise port.refuse("operator")
    gains = (2,) if port.node.op_type.startswith("SkipSimplified") else (2, 3)
    _gain(port, trace, gains, port.layout.ndim - 1)


def gain_of_channels(port: Port, trace: Trace) -> None:
    """InstanceNormalization and GroupNormalization: gain and offset per channel of axis 1."""
    shape = port.layout.shape
    if port.is_input or port.position > 0 or any(n > 1 for i, n in enumerate(shape) if i != 1):
        raise port.refuse("operator")
    gain = constant_of(port.node.inputs[1])
    if gain is None or gain.shape.numpy()[0] != shape[1]:
        raise port.refuse("shape")  # Before opset 21 GroupNormalization has one per group.
    for position in (1, 2):
        trace.scale(port.node, position, port.layout.reshape(-1), -1)


def _gain(port: Port, trace: Trace, inputs: tuple[int, ...], axis: int) -> None:
    """Divide gain and offset, which have the axes from `axis` on."""
    node, shape = port.node, port.layout.shape
    if any(n > 1 for n in shape[:axis]):
        raise port.refuse("shape")
    layout = port.layout.reshape(shape[axis:])
    for position in inputs:
        if position < len(node.inputs) and node.inputs[position] is not None:
            trace.scale(node, position, layout, -1)


def attention(port: Port, trace: Trace) -> None:
    """ai.onnx Attention: the columns of V are those of the result, once for each query head."""
    node = port.node
    if (port.is_input and port.position != 2) or (not port.is_input and port.position > 0):
        raise port.refuse("product")
    if len(node.inputs) > 5 and node.inputs[5] is not None:
        raise port.refuse("input")
    if len(node.outputs) > 2 and (node.outputs[2].uses() or node.outputs[2].is_graph_output()):
        raise port.refuse("output")
    _through(port, trace, 2, *_heads(port, trace))


def multi_head_attention(port: Port, trace: Trace) -> None:
    """com.microsoft MultiHeadAttention without a cache: V [batch, positions, heads * width]."""
    node = port.node
    if (port.is_input and port.position != 2) or (not port.is_input and port.position > 0):
        raise port.refuse("product")
    if any(value is not None for value in node.inputs[6:8]):
        raise port.refuse("input")
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        raise port.refuse("output")
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        raise port.refuse("operator")  # The biases of query, key and value in one.
    heads = node.attributes.get_int("num_heads", 0)
    _through(port, trace, 2, heads, heads)


def _heads(port: Port, trace: Trace) -> tuple[int, int]:
    """Return how many heads the queries and the values have."""
    node = port.node
    shapes = [trace.shapes.shape(value) for value in (node.outputs[0], node.inputs[2])]
    if any(shape is not None and len(shape) == 4 for shape in shapes):
        counts = [None if shape is None else shape[1] for shape in shapes]
    else:
        counts = [node.attributes.get_int(name, 0) for name in ("q_num_heads", "kv_num_heads")]
    if not all(isinstance(n, int) and n > 0 for n in counts):
        raise port.refuse("shape")
    return counts[0], counts[1]  # type: ignore[return-value]


def _through(port: Port, trace: Trace, position: int, queries: int, values: int) -> None:
    node, layout, times = port.node, port.layout, queries // values
    axis = 1 if layout.ndim == 4 else 2
    places = [i for i, n in enumerate(layout.shape) if n > 1 and i not in (1, 3)]
    if layout.ndim == 3 and (layout.shape[0] > 1 or layout.shape[1] > 1):
        raise port.refuse("shape")
    if layout.ndim == 4 and places:
        raise port.refuse("shape")
    heads = (
        layout if layout.ndim == 4 else _split_heads(layout, values if port.is_input else queries)
    )
    if port.is_input:
        if heads.shape[1] > 1:
            heads = np.repeat(heads, times, axis=1)
        found = heads
    else:
        if heads.shape[1] > 1 and times > 1:
            shape = heads.shape
            grouped = heads.reshape(shape[0], values, times, *shape[2:])
            heads = trace.units.reduce(grouped, 2).reshape(shape[0], values, *shape[2:])
        found = heads
    if axis == 2:
        found = _joined_heads(found)
    if port.is_input:
        trace.couple(node.outputs[0], found)
    else:
        trace.operand(port, position, found)


def _split_heads(layout: Layout, heads: int) -> Layout:
    """[1, 1, heads * width] -> [1, heads, 1, width]."""
    return layout.reshape(1, heads, 1, -1)


def _joined_heads(layout: Layout) -> Layout:
    return layout.reshape(1, 1, -1)
