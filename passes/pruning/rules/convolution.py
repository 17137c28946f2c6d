"""Convolution and what stands beside it: channels lie on axis 1."""

from __future__ import annotations

from irtools.analysis.shapes import constant_of
from irtools.passes.pruning.groups import AttributeEdit, Trace
from irtools.passes.pruning.rules.elementwise import unary
from irtools.passes.pruning.rules.port import Port
from irtools.passes.pruning.rules.products import add_bias

__all__ = ["batch_norm", "conv", "pool"]


def conv(port: Port, trace: Trace) -> None:
    node = port.node
    x, w = port.other(0), port.other(1)
    weight = constant_of(w)
    if x is None or weight is None or (port.is_input and port.position > 0):
        trace.block(node, "its weight is not constant")
        return
    if port.axis != 1:
        pass_through(port, trace, "spatial axis")
        return
    group = node.attributes.get_int("group", 1)
    if group == 1:
        if port.is_input:
            trace.add_member(node, 1, 1, port.map, "in", 1)
            return
    elif group == weight.shape[0] and weight.shape[1] == 1:
        trace.couple(x, 1, port.map)
        trace.attribute_edits[node, "group"] = AttributeEdit(
            node, "group", (port.map.outer or 1) * port.map.inner
        )
    else:
        trace.block(node, f"{group} groups, neither 1 nor one per channel")
        return
    trace.couple(node.outputs[0], 1, port.map)
    trace.add_member(node, 1, 0, port.map, "out" if group == 1 else "along")
    add_bias(port, trace, 2)


def batch_norm(port: Port, trace: Trace) -> None:
    if port.axis != 1 or (port.is_input and port.position > 0):
        pass_through(port, trace, "parameters")
        return
    unary(port, trace)
    for position in range(1, len(port.node.inputs)):
        if constant_of(port.other(position)) is None:
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
