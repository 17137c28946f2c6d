"""Sizes that operators are given: which are written down, and which follow by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from irtools.analysis.channels.groups import ShapeEdit, Trace
from irtools.analysis.channels.index_map import IndexMap
from irtools.analysis.channels.rules.port import Port
from irtools.analysis.dims import divide
from irtools.editing import weight_of

__all__ = ["edit_target", "fill", "follow_size"]

_TARGETS: Mapping[str, int] = MappingProxyType(
    {"ConstantOfShape": 0, "Expand": 1, "Reshape": 1, "Resize": 3}
)
"""Operators that take the shape of their result, and the input that it is."""


def edit_target(node: ir.Node, trace: Trace, axis: int, mapping: IndexMap) -> None:
    """Decide how the target size of an output axis follows: by itself, or by an edit.

    Args:
        node: A node of `_TARGETS`.
        trace: The group.
        axis: Axis of its output, on which the units lie.
        mapping: Their layout there.
    """
    operand = _TARGETS[node.op_type]
    target = node.inputs[operand]
    sizes = trace.shapes.integers(target)
    position = _element_of(node, axis, trace)
    if target is None or sizes is None or position is None:
        trace.block(node, f"size {axis} of its target is computed in a way that is not understood")
        return
    written = sizes.reshape(-1)[position] if 0 <= position < sizes.size else 1
    if _is_free(node, written):
        return
    part, element = _locate(target, position, trace)
    source = _source(target, part)
    if weight_of(source) is None:
        trace.adaptive[node, axis] = _computed(node, operand, position, sizes, mapping)
    elif mapping.outer is None:
        trace.block(node, "the number of its channels is only known when it runs")
    else:
        factor = mapping.outer * mapping.inner
        trace.edit_size(ShapeEdit(node, operand, element, factor, part))


def _is_free(node: ir.Node, written: object) -> bool:
    """Whether the written size leaves the axis to the data: -1 and 0 of Reshape, 1 of Expand."""
    if node.op_type == "Reshape":
        copies = written == 0 and not node.attributes.get_int("allowzero", 0)
        return written == -1 or copies
    return node.op_type == "Expand" and written == 1


def _computed(
    node: ir.Node, operand: int, position: int, sizes: np.ndarray, mapping: IndexMap
) -> ShapeEdit | None:
    """Return the edit of a size that is computed, should it not follow the channels."""
    length, written = sizes.size, sizes.reshape(-1)[position]
    if mapping.outer is not None and isinstance(written, int):
        factor = mapping.outer * mapping.inner
        return ShapeEdit(node, operand, position, factor, length=length)
    whole = mapping.units * mapping.inner
    if mapping.outer is None and not isinstance(written, int) and divide(written, whole):
        return ShapeEdit(node, operand, position, 0, length=length, units=mapping.units)
    return None


def _element_of(node: ir.Node, axis: int, trace: Trace) -> int | None:
    """Return which element of the target an output axis is."""
    rank = trace.shapes.rank(node.outputs[0])
    sizes = trace.shapes.integers(node.inputs[_TARGETS[node.op_type]])
    if rank is None or sizes is None:
        return None
    if "axes" in node.attributes:
        axes = [a % rank for a in node.attributes.get_ints("axes", ())]
        return axes.index(axis) if axis in axes else None
    return axis - rank + sizes.size


def _axis_of(node: ir.Node, position: int, trace: Trace) -> int | None:
    """Return which output axis an element of the target is."""
    rank = trace.shapes.rank(node.outputs[0])
    sizes = trace.shapes.integers(node.inputs[_TARGETS[node.op_type]])
    if rank is None or sizes is None:
        return None
    if "axes" in node.attributes:
        return list(node.attributes.get_ints("axes", ()))[position] % rank
    return rank - sizes.size + position


def _source(target: ir.Value, part: int | None) -> ir.Value | None:
    concat = target.producer()
    return target if part is None or concat is None else concat.inputs[part]


def _locate(target: ir.Value, position: int, trace: Trace) -> tuple[int | None, int]:
    """Return where a shape element comes from: (input of its Concat or None, element there)."""
    producer = target.producer()
    if producer is None or producer.op_type != "Concat":
        return None, position
    rest = position
    for place, value in enumerate(producer.inputs):
        numbers = trace.shapes.integers(value)
        if numbers is None:
            return None, position
        if rest < numbers.size:
            return place, rest
        rest -= numbers.size
    return None, position


def fill(port: Port, trace: Trace) -> None:
    """ConstantOfShape: every unit is the same number."""
    if port.is_input:
        trace.block(port.node, "its channels are a shape here")
    else:
        trace.couple(port.node.outputs[0], port.axis, port.map)
        edit_target(port.node, trace, port.axis, port.map)


def follow_size(port: Port, trace: Trace) -> None:
    """Follow the size of a slot that a Shape node reads to the targets that use it.

    The target sizes change by themselves, which is right where the axis that they give is a slot
    too; `Trace.size_uses` remembers them until that is known.
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
        if _TARGETS.get(node.op_type) == place:
            axis = _axis_of(node, position, trace)
            if axis is None:
                trace.block(node, "it takes the number of channels in a way not understood")
            else:
                trace.size_uses.add((node, axis))
            continue
        after = _after(node, place, position, trace)
        if after is None:
            trace.block(node, "it computes with the number of channels")
        elif isinstance(after, int):
            _follow(node.outputs[0], after, trace)


def _after(node: ir.Node, place: int, position: int, trace: Trace) -> int | str | None:
    """Where an element of a shape goes: a position, `dropped`, or None: unknown."""
    match node.op_type:
        case "Cast" | "Identity" | "Unsqueeze" | "Squeeze":
            return position
        case "Where" if place > 0:
            return position
        case "Reshape" if trace.shapes.rank(node.outputs[0]) in (0, 1):
            return position
        case "Shape":
            return "dropped"
        case "Mul" if _is_number(node.inputs[1 - place], trace):
            # How keys are repeated for grouped queries; the units of the slot say by how much.
            return position
        case "Equal" if _is_minus_one(node.inputs[1 - place], trace):
            # How torch writes an expand: no size is ever -1.
            return "dropped"
        case "Concat":
            lengths = [trace.shapes.integers(v) for v in node.inputs[:place]]
            if any(n is None for n in lengths):
                return None
            return position + sum(n.size for n in lengths if n is not None)
        case "Gather" | "Slice" if place == 0:
            return _selected(node, position, trace)
    return None


def _is_minus_one(value: ir.Value | None, trace: Trace) -> bool:
    numbers = trace.shapes.integers(value)
    return numbers is not None and all(n == -1 for n in numbers.reshape(-1))


def _is_number(value: ir.Value | None, trace: Trace) -> bool:
    numbers = trace.shapes.integers(value)
    return numbers is not None and numbers.size == 1 and isinstance(numbers.item(), int)


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
