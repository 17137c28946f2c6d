"""Convolution and what belongs to it: channels lie on axis 1."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from irtools.analysis.channels.groups import AttributeEdit, Trace
from irtools.analysis.channels.rules.elementwise import unary
from irtools.analysis.channels.rules.port import Port
from irtools.analysis.channels.rules.products import add_bias
from irtools.analysis.channels.rules.sizes import edit_target
from irtools.editing import weight_of

__all__ = ["batch_norm", "conv", "conv_transpose", "pad", "pool", "resize"]


def conv(port: Port, trace: Trace) -> None:
    """Weights are [O, I/g, ..]."""
    _convolution(port, trace, ins=1, outs=0)


def conv_transpose(port: Port, trace: Trace) -> None:
    """Weights are [I, O/g, ..]."""
    _convolution(port, trace, ins=0, outs=1)


def _convolution(port: Port, trace: Trace, *, ins: int, outs: int) -> None:
    node = port.node
    x, w = port.other(0), port.other(1)
    weight = weight_of(w)
    if x is None or weight is None or (port.is_input and port.position > 0):
        trace.block(node, "its weight is not constant")
        return
    if port.axis != 1:
        pass_through(port, trace, "spatial axis")
        return
    group = node.attributes.get_int("group", 1)
    if group == 1:
        if port.is_input:
            trace.add_member(node, 1, ins, port.map, "in", 1)
            return
    elif group == weight.shape[0] and weight.shape[1] == 1:
        trace.couple(x, 1, port.map)
        fitted = port.map.fitted(group)
        if fitted is not None and fitted.outer is not None:  # Else `add_member` below blocks it.
            trace.edit_attribute(AttributeEdit(node, "group", fitted.outer * fitted.inner))
    else:
        trace.block(node, f"{group} groups, neither 1 nor one per channel")
        return
    trace.couple(node.outputs[0], 1, port.map)
    # One filter per channel lies on axis 0 of either kind.
    trace.add_member(node, 1, outs if group == 1 else 0, port.map, "out" if group == 1 else "along")
    add_bias(port, trace)


def batch_norm(port: Port, trace: Trace) -> None:
    if port.axis != 1 or (port.is_input and port.position > 0):
        pass_through(port, trace, "parameters")
        return
    unary(port, trace)
    for position in range(1, len(port.node.inputs)):
        if weight_of(port.other(position)) is None:
            trace.block(port.node, "its parameters are not constant")
            return
        trace.add_member(port.node, position, 0, port.map, "along")


def pass_through(port: Port, trace: Trace, what: str) -> None:
    """Axis 0 of data and result belong together; any other axis is not followed."""
    if port.axis == 0 and port.position == 0:
        unary(port, trace)
    else:
        trace.block(port.node, f"channels lie on its {what}")


def pool(port: Port, trace: Trace) -> None:
    if port.axis > 1:
        trace.block(port.node, "channels lie on a spatial axis")
    else:
        unary(port, trace)


def pad(port: Port, trace: Trace) -> None:
    """Any mode and any value: what is put around a channel goes with it."""
    padded = _padded_axes(port, trace)
    if padded is None:
        trace.block(port.node, "how much it pads is not known")
    elif port.axis in padded:
        trace.block(port.node, "it pads the axis of the channels")
    else:
        unary(port, trace)


def _padded_axes(port: Port, trace: Trace) -> set[int] | None:
    node = port.node
    rank = trace.shapes.rank(node.inputs[0])
    pads: Sequence[object] | None = node.attributes.get_ints("pads")
    if pads is None and port.other(1) is not None:
        numbers = trace.shapes.integers(port.other(1))
        pads = None if numbers is None else numbers.reshape(-1).tolist()
    axes: Sequence[object] | None = range(rank or 0)
    if port.other(3) is not None:
        chosen = trace.shapes.integers(port.other(3))
        axes = None if chosen is None else chosen.reshape(-1).tolist()
    if rank is None or pads is None or axes is None or len(pads) != 2 * len(axes):
        return None
    places = [axis % rank for axis in axes if isinstance(axis, int)]
    if len(places) != len(axes):
        return None
    begins, ends = pads[: len(axes)], pads[len(axes) :]
    return {a for a, p, q in zip(places, begins, ends, strict=True) if p != 0 or q != 0}


def resize(port: Port, trace: Trace) -> None:
    """Channels pass where their axis keeps its size."""
    node = port.node
    rank = trace.shapes.rank(node.inputs[0])
    if rank is None or (port.is_input and port.position > 0):
        trace.block(node, "its rank is not known, or its channels are a parameter here")
        return
    axes = [a % rank for a in node.attributes.get_ints("axes", range(rank))]
    if port.axis in axes and _tensor(port, 3) is None:
        scales = _tensor(port, 2)
        factors = None if scales is None else weight_of(scales)
        if factors is None or factors.numpy()[axes.index(port.axis)] != 1:
            trace.block(node, "its scale along the channels is not known to be 1")
            return
    elif port.axis in axes:
        shapes = [trace.shapes.shape(v) for v in (node.inputs[0], node.outputs[0])]
        if None in shapes or len({s[port.axis] for s in shapes if s is not None}) > 1:
            trace.block(node, "its size along the channels is not known to stay")
            return
        edit_target(node, trace, port.axis, port.map)
    unary(port, trace)


def _tensor(port: Port, position: int) -> ir.Value | None:
    """Return an input, None where it is absent or, as older exporters say it, empty."""
    value = port.other(position)
    tensor = weight_of(value)
    return None if tensor is not None and tensor.size == 0 else value
