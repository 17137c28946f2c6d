"""Sizes that are computed from channels, and targets of Reshape that write them down."""

from __future__ import annotations

import onnx_ir as ir

from irtools.analysis.shapes import constant_of
from irtools.passes.pruning.groups import ShapeEdit, Trace
from irtools.passes.pruning.index_map import IndexMap
from irtools.passes.pruning.rules.port import Port

__all__ = ["edit_target", "follow_size"]


def edit_target(node: ir.Node, trace: Trace, axis: int, mapping: IndexMap) -> None:
    """Decide how the target size at `axis` follows: by itself, or by an edit of a constant."""
    target = node.inputs[1]
    sizes = trace.shapes.integers(target)
    place = _locate(target, axis, trace)
    if target is None or sizes is None or place is None:
        trace.block(node, f"size {axis} of its target is computed in a way that is not understood")
        return
    written = sizes.reshape(-1)[axis]
    if written == -1 or (written == 0 and not node.attributes.get_int("allowzero", 0)):
        return
    concat = target.producer()
    source = target if place[0] is None or concat is None else concat.inputs[place[0]]
    if constant_of(source) is None:
        trace.adaptive.add((node, axis))
    elif mapping.outer is None:
        trace.block(node, "the number of its channels is only known when it runs")
    else:
        factor = mapping.outer * mapping.inner
        if written != factor * mapping.units:
            trace.block(node, "its target has other channels beside these")
            return
        trace.shape_edits[node, axis] = ShapeEdit(node, axis, factor, *place)


def _locate(target: ir.Value | None, position: int, trace: Trace) -> tuple[int | None, int] | None:
    """Return where an element of a shape stands: (input of its Concat or None, element there)."""
    producer = target.producer() if target is not None else None
    if target is None or constant_of(target) is not None or producer is None:
        return None, position
    if producer.op_type != "Concat":
        return None, position
    for place, value in enumerate(producer.inputs):
        numbers = trace.shapes.integers(value)
        if numbers is None:
            return None
        if position < numbers.size:
            return place, position
        position -= numbers.size
    return None


def follow_size(port: Port, trace: Trace) -> None:
    """Follow the size of a slot that a Shape node reads to the Reshape targets that use it.

    The target sizes change by themselves, which is right where the reshaped axis is a slot too;
    `Trace.adaptive` remembers them until that is known.
    """
    rank = trace.shapes.rank(port.value)
    if rank is None:
        trace.block(port.node, "the rank of what it reads is not known")
        return
    attributes = port.node.attributes
    window = range(rank)[attributes.get_int("start", 0) : attributes.get_int("end", rank)]
    if port.axis in window:
        _follow(port.node.outputs[0], window.index(port.axis), trace)


def _follow(value: ir.Value, position: int, trace: Trace) -> None:
    if value.is_graph_output():
        trace.block(value.producer(), "the number of channels is an output of the model")
    for node, place in value.uses():
        after = _after(node, place, position, trace)
        if after == "reshape":
            trace.adaptive.add((node, position))
            trace.size_uses.add((node, position))
        elif after is None:
            trace.block(node, "it computes with the number of channels")
        elif isinstance(after, int):
            _follow(node.outputs[0], after, trace)


def _after(node: ir.Node, place: int, position: int, trace: Trace) -> int | str | None:
    """Where an element of a shape goes: a position, `reshape`, `dropped`, or None: unknown."""
    match node.op_type:
        case "Reshape" if place == 1:
            return "reshape"
        case "Cast" | "Identity" | "Unsqueeze" | "Squeeze":
            return position
        case "Concat":
            lengths = [trace.shapes.integers(v) for v in node.inputs[:place]]
            if any(n is None for n in lengths):
                return None
            return position + sum(n.size for n in lengths if n is not None)
        case "Gather" | "Slice" if place == 0:
            return _selected(node, position, trace)
    return None


def _selected(node: ir.Node, position: int, trace: Trace) -> int | str | None:
    length = trace.shapes.shape(node.inputs[0])
    picked = _picks(node, trace, length[0]) if length and isinstance(length[0], int) else None
    if picked is None:
        return None
    return picked.index(position) if position in picked else "dropped"


def _picks(node: ir.Node, trace: Trace, length: int) -> list[int] | None:
    operands = [trace.shapes.integers(v) for v in node.inputs[1:] if v is not None]
    if any(o is None or not all(isinstance(i, int) for i in o.reshape(-1)) for o in operands):
        return None
    numbers = [[int(i) for i in o.reshape(-1)] for o in operands if o is not None]
    if node.op_type == "Gather":
        return [i % length for i in numbers[0]]
    step = numbers[3][0] if len(numbers) > 3 else 1
    return list(range(length))[numbers[0][0] : numbers[1][0] : step]
