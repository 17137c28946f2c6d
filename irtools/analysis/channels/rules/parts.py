"""Concat and Split: units at an offset, and units in several parts."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from irtools.analysis.channels.groups import AttributeEdit, ShapeEdit, Trace
from irtools.analysis.channels.index_map import IndexMap
from irtools.analysis.channels.rules.port import Port, Refine
from irtools.editing import weight_of

__all__ = ["concat", "split"]


def concat(port: Port, trace: Trace) -> None:
    """Along its axis units keep their part, at an offset; along any other all inputs have them."""
    rank = trace.shapes.rank(port.value)
    if rank is None:
        trace.block(port.node, "its rank is not known")
    elif port.axis == port.node.attributes.get_int("axis", 0) % rank:
        _joined_part(port, trace)
    else:
        for position, value in enumerate(port.node.inputs):
            assert value is not None
            if weight_of(value) is not None:
                trace.add_member(port.node, position, port.axis, port.map, "along")
            else:
                trace.couple(value, port.axis, port.map)
        trace.couple(port.node.outputs[0], port.axis, port.map)


def _joined_part(port: Port, trace: Trace) -> None:
    sizes = _sizes(port.node.inputs, port.axis, trace)
    if sizes is None:
        trace.block(port.node, "sizes along its axis are not known")
        return
    if port.is_input:
        start = sum(sizes[: port.position])
        trace.couple(port.node.outputs[0], port.axis, port.map.shifted(start))
        return
    found = _part_of(port.map, sizes)
    value = None if found is None else port.node.inputs[found[0]]
    if found is None or value is None:
        trace.block(port.node, "its channels lie across several parts")
    elif weight_of(value) is not None:
        trace.add_member(port.node, found[0], port.axis, found[1], "along")
    else:
        trace.couple(value, port.axis, found[1])


def _sizes(values: Sequence[ir.Value | None], axis: int, trace: Trace) -> list[int] | None:
    shapes = [trace.shapes.shape(value) for value in values]
    sizes = [None if shape is None else shape[axis] for shape in shapes]
    numbers = [size for size in sizes if isinstance(size, int)]
    return numbers if len(numbers) == len(sizes) else None


def _part_of(mapping: IndexMap, sizes: Sequence[int]) -> tuple[int, IndexMap] | None:
    """Return the part that holds all units, and where they lie in it."""
    start = 0
    for place, size in enumerate(sizes):
        inside = mapping.offset + (mapping.size or 0) <= start + size
        if mapping.size is not None and start <= mapping.offset and inside:
            return place, mapping.shifted(-start)
        start += size
    return None


def split(port: Port, trace: Trace) -> None:
    """Units in one part alone, or spread alike over equal parts (packed query, key and value)."""
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
    sizes = _sizes(node.outputs, port.axis, trace)
    if port.map.outer is None or sizes is None:
        trace.block(node, "sizes of its parts are not known")
    elif len(set(sizes)) == 1 and port.map.size in (sizes[0], sum(sizes)):
        _equal_parts(port, trace, x)
    else:
        _one_part(port, trace, x, sizes)


def _equal_parts(port: Port, trace: Trace, x: ir.Value) -> None:
    node, parts = port.node, len(port.node.outputs)
    whole = port.map
    assert whole.outer is not None
    if not port.is_input:
        whole = IndexMap(whole.units, whole.inner, whole.outer * parts)
    elif whole.outer and whole.outer % parts:
        if whole.outer != 1 or whole.units % parts:
            trace.block(node, "its parts cut through units")
            return
        raise Refine((parts, whole.units // parts, 1))
    assert whole.outer is not None
    trace.couple(x, port.axis, whole)
    part = IndexMap(whole.units, whole.inner, whole.outer // parts)
    for place, value in enumerate(node.outputs):
        trace.couple(value, port.axis, part)
        _edit_part(node, place, part, trace)


def _one_part(port: Port, trace: Trace, x: ir.Value, sizes: Sequence[int]) -> None:
    node = port.node
    place, part = port.position, port.map
    if port.is_input:
        found = _part_of(port.map, sizes)
        if found is None:
            trace.block(node, "its parts differ in size and cut through the channels")
            return
        place, part = found
    if "split" not in node.attributes and (len(node.inputs) < 2 or node.inputs[1] is None):
        trace.block(node, "its parts are equal by definition, and only one would shrink")
        return
    trace.couple(x, port.axis, part.shifted(sum(sizes[:place])))
    trace.couple(node.outputs[place], port.axis, part)
    _edit_part(node, place, part, trace)


def _edit_part(node: ir.Node, place: int, part: IndexMap, trace: Trace) -> None:
    """Correct the written size of a part; with `num_outputs` nothing is written."""
    assert part.outer is not None
    factor = part.outer * part.inner
    sizes = node.inputs[1] if len(node.inputs) > 1 else None
    if "split" in node.attributes:
        trace.edit_attribute(AttributeEdit(node, "split", factor, place))
    elif sizes is not None:
        length = None if weight_of(sizes) is not None else len(node.outputs)
        trace.edit_size(ShapeEdit(node, 1, place, factor, length=length))
