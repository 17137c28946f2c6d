"""Following a scale from the input of a product, in one of three ways."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import onnx_ir as ir

from irtools.analysis.scales.rules import SCALES
from irtools.analysis.scales.trace import Member, Port, Refusal, Trace
from irtools.analysis.scales.units import Layout, channel_layout
from irtools.editing import constant_of
from irtools.operators import weight_port

__all__ = ["Cut", "Way", "follow", "is_product"]

Way: TypeAlias = Literal["folded", "branched", "inserted"]

_PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
_LARGE = 4096
"""Elements from which a shared constant is not copied: a matrix, or a table."""


@dataclass(frozen=True)
class Cut:
    """A value of which only some readers read it divided.

    Attributes:
        value: It.
        layout: Its units.
        readers: (node, input) of those that do; the others keep what they had.
    """

    value: ir.Value
    layout: Layout
    readers: tuple[tuple[ir.Node, int], ...]


def is_product(node: ir.Node) -> bool:
    """Whether a node multiplies an activation by a constant, turned or not."""
    if node.domain != "" or node.op_type not in _PRODUCTS or constant_of(node.inputs[0]):
        return False
    port = weight_port(node)
    assert port is not None
    weight = node.inputs[port.input]
    turn = None if weight is None else weight.producer()
    if turn is not None and turn.op_type == "Transpose":
        weight = turn.inputs[0]
    return constant_of(weight) is not None


def follow(trace: Trace, node: ir.Node, way: Way) -> tuple[Cut, ...]:
    """Follow everything from the input of a product; returns the values that were cut.

    Raises:
        Refusal: The scale cannot be moved in this way.
        NeedsChoice: Several inputs of a node could take it.
    """
    readers_of: dict[ir.Value, tuple[tuple[ir.Node, int], ...]] = {}
    _start(trace, node)
    at = shared = 0
    while at < len(trace.pending) or shared < len(trace.members):
        if at == len(trace.pending):
            _share(trace, list(trace.members.values())[shared])
            shared += 1
            continue
        value = trace.pending[at]
        at += 1
        products = tuple((u.node, u.idx) for u in value.uses() if u.idx == 0 and is_product(u.node))
        if way == "folded" or not products:
            _neighbours(trace, value)
            continue
        readers_of[value] = products
        for reader, index in products:
            _meet(trace, Port(reader, True, index, trace.layouts[value]))
        if way == "branched":
            _made(trace, value)
    return tuple(Cut(value, trace.layouts[value], r) for value, r in readers_of.items())


def _start(trace: Trace, node: ir.Node) -> None:
    value = node.inputs[0]
    shape = trace.shapes.shape(value)
    axis = _channel_axis(node)
    size = None if shape is None or len(shape) < 2 else shape[axis]
    if value is None or shape is None or not isinstance(size, int):
        raise Refusal("shape", node.op_type)
    units = trace.units.fresh(size)
    trace.couple(value, channel_layout(units, len(shape), axis % len(shape)))


def _neighbours(trace: Trace, value: ir.Value) -> None:
    if value.is_graph_output():
        raise Refusal("output", value.name or "?")
    _made(trace, value)
    for use in value.uses():
        _meet(trace, Port(use.node, True, use.idx, trace.layouts[value]))


def _made(trace: Trace, value: ir.Value) -> None:
    """Follow a value back to what makes it."""
    producer = value.producer()
    if producer is None:
        raise Refusal("input", value.name or "?")
    place = list(producer.outputs).index(value)
    _meet(trace, Port(producer, False, place, trace.layouts[value]))


def _meet(trace: Trace, port: Port) -> None:
    node = port.node
    if node.graph is not trace.graph:
        raise Refusal("subgraph", node.op_type)
    if node.op_type == "Shape" and node.domain == "":
        return
    rule = SCALES.of(node)
    if rule is None:
        raise port.refuse("operator")
    rule(port, trace)


def _share(trace: Trace, member: Member) -> None:
    """Let every product that reads a matrix read it scaled, so that none has to be copied.

    A vector (a gain, a bias) is copied where other nodes read it.
    """
    value = member.node.inputs[member.input]
    assert value is not None
    if value.is_graph_output():
        raise Refusal("output", value.name or "?")
    turn = member.node if member.node.op_type == "Transpose" else None
    readers = list(_readers(value))
    is_matrix = len(member.tensor.shape) > 1 and member.tensor.size >= _LARGE
    if turn is not None and not is_matrix:
        readers = [(node, holder) for node, holder in readers if holder is turn]
    elif not is_matrix:
        return
    if len(readers) < 2:
        return
    own = next(node for node, holder in readers if holder is member.node)
    for node, holder in readers:
        if node is own and holder is member.node:
            continue
        alike = is_product(node) and _turned(node, holder) == _turned(own, member.node)
        if not alike or (node.op_type == "Conv") != (own.op_type == "Conv"):
            raise Refusal("shared", value.name or "?")
        _couple_twin(trace, member, own, node)


def _readers(value: ir.Value) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Yield the nodes that read a constant, past a Transpose, and who reads it directly."""
    for use in value.uses():
        if use.node.op_type == "Transpose" and not use.node.outputs[0].is_graph_output():
            yield from ((inner.node, use.node) for inner in use.node.outputs[0].uses())
        else:
            yield use.node, use.node


def _turned(node: ir.Node, holder: ir.Node) -> bool:
    """Whether a product reads its weight as [N, K]."""
    return (holder is not node) != (node.attributes.get_int("transB", 0) == 1)


def _couple_twin(trace: Trace, member: Member, own: ir.Node, twin: ir.Node) -> None:
    """Couple the input or the output of another product by the same weight."""
    if member.power == 1:
        here, there = own.inputs[0], twin.inputs[0]
    else:
        here, there = own.outputs[0], twin.outputs[0]
    layout, rank = None if here is None else trace.layouts.get(here), trace.shapes.rank(there)
    if layout is None or rank is None:
        raise Refusal("shared", twin.op_type)
    axis = _channel_axis(twin) % rank
    trace.couple(there, channel_layout(layout.reshape(-1), rank, axis))


def _channel_axis(node: ir.Node) -> int:
    return 1 if node.op_type == "Conv" else -1
