"""Concat and Split: units at an offset, and units in several parts."""

from __future__ import annotations

from irtools.analysis.shapes import constant_of
from irtools.passes.pruning.groups import Trace
from irtools.passes.pruning.index_map import IndexMap
from irtools.passes.pruning.rules.port import Port, Refine

__all__ = ["concat", "split"]


def concat(port: Port, trace: Trace) -> None:
    y = port.node.outputs[0]
    rank = trace.shapes.rank(port.value)
    if rank is None:
        trace.block(port.node, "its rank is not known")
        return
    if port.axis != port.node.attributes.get_int("axis", 0) % rank:
        for position, value in enumerate(port.node.inputs):
            assert value is not None
            if constant_of(value) is not None:
                trace.add_member(port.node, position, port.axis, port.map, "along")
            else:
                trace.couple(value, port.axis, port.map)
        trace.couple(y, port.axis, port.map)
        return
    sizes = [(trace.shapes.shape(v) or (None,) * rank)[port.axis] for v in port.node.inputs]
    starts = [0]
    for size in sizes:
        if not isinstance(size, int):
            trace.block(port.node, "sizes along its axis are not known")
            return
        starts.append(starts[-1] + size)
    if port.is_input:
        trace.couple(y, port.axis, port.map.shifted(starts[port.position]))
        return
    # Met from behind: the units of one part only, or the group would span several parts.
    extent = port.map.size
    if port.map.offset not in starts[:-1] or extent is None:
        trace.block(port.node, "its channels lie across several parts")
        return
    part = starts.index(port.map.offset)
    value = port.node.inputs[part]
    if extent != sizes[part] or value is None:
        trace.block(port.node, "its channels lie across several parts")
        return
    trace.couple(value, port.axis, port.map.shifted(-port.map.offset))


def split(port: Port, trace: Trace) -> None:
    node = port.node
    x = node.inputs[0]
    rank = trace.shapes.rank(x)
    if x is None or rank is None or (port.is_input and port.position > 0):
        trace.block(node, "its rank is not known")
        return
    if port.axis != node.attributes.get_int("axis", 0) % rank:
        for value in (x, *node.outputs):
            trace.couple(value, port.axis, port.map)
        return
    parts = len(node.outputs)
    sizes = {(trace.shapes.shape(v) or (None,) * rank)[port.axis] for v in node.outputs}
    whole = port.map if port.is_input else None
    if len(sizes) != 1 or port.map.offset or port.map.outer is None:
        trace.block(node, "its parts differ in size")
        return
    if whole is None:
        whole = IndexMap(port.map.units, port.map.inner, port.map.outer * parts)
    assert whole.outer is not None
    if whole.outer % parts:
        if whole.outer != 1 or whole.units % parts:
            trace.block(node, "its parts cut through units")
            return
        raise Refine((parts, whole.units // parts, 1))
    trace.couple(x, port.axis, whole)
    part = IndexMap(whole.units, whole.inner, whole.outer // parts)
    for value in node.outputs:
        trace.couple(value, port.axis, part)
