"""Operators that move axes, add or drop them, or change others: the layout moves as tensors do."""

from __future__ import annotations

import numpy as np

from irtools.analysis.scales.rules.elementwise import same
from irtools.analysis.scales.trace import Port, Trace
from irtools.analysis.scales.units import aligned
from irtools.editing import constant_of

__all__ = ["expand", "pad", "reduce", "resize", "squeeze", "tile", "transpose", "unsqueeze"]


def transpose(port: Port, trace: Trace) -> None:
    rank = port.layout.ndim
    perm = list(port.node.attributes.get_ints("perm", tuple(reversed(range(rank)))))
    if port.is_input:
        trace.couple(port.node.outputs[0], port.layout.transpose(perm))
    else:
        trace.operand(port, 0, port.layout.transpose(np.argsort(perm)))


def squeeze(port: Port, trace: Trace) -> None:
    _stretch(port, trace, wide=port.is_input)


def unsqueeze(port: Port, trace: Trace) -> None:
    _stretch(port, trace, wide=not port.is_input)


def _stretch(port: Port, trace: Trace, *, wide: bool) -> None:
    """Drop axes of one element, or add them: `wide` says that this port has them."""
    node = port.node
    there = node.outputs[0] if port.is_input else node.inputs[0]
    rank = trace.shapes.rank(there)
    axes = _axes(port, trace)
    if rank is None or (port.is_input and port.position > 0):
        raise port.refuse("shape")
    if axes is None:
        shape = trace.shapes.shape(node.inputs[0])
        if node.op_type != "Squeeze" or shape is None:
            raise port.refuse("shape")
        axes = [i for i, size in enumerate(shape) if size == 1]
    full = port.layout.ndim if wide else rank
    places = tuple(sorted(axis % full for axis in axes))
    layout = port.layout.squeeze(places) if wide else np.expand_dims(port.layout, places)
    if port.is_input:
        trace.couple(there, layout)
    else:
        trace.operand(port, 0, layout)


def expand(port: Port, trace: Trace) -> None:
    node = port.node
    if port.is_input and port.position > 0:
        raise port.refuse("shape")
    if port.is_input:
        trace.couple(node.outputs[0], port.layout)
        return
    rank = trace.shapes.rank(node.inputs[0])
    layout = port.layout
    for axis in range(layout.ndim - (layout.ndim if rank is None else rank)):
        layout = trace.units.reduce(layout, axis)
    if constant_of(node.inputs[0]) is not None:
        raise port.refuse("operator")
    found = None if rank is None else aligned(layout, rank)
    if found is None:
        raise port.refuse("shape")
    trace.couple(node.inputs[0], found)


def tile(port: Port, trace: Trace) -> None:
    """Repeats along axes without units only."""
    repeats = trace.shapes.integers(port.node.inputs[1])
    if repeats is None or any(
        n != 1 and size > 1 for n, size in zip(repeats.reshape(-1), port.layout.shape, strict=False)
    ):
        raise port.refuse("shape")
    same(port, trace)


def pad(port: Port, trace: Trace) -> None:
    """Zeros around axes without units."""
    node = port.node
    value = constant_of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
    filled = value is not None and (value.numpy() != 0).any()
    unknown = len(node.inputs) > 2 and node.inputs[2] is not None and value is None
    if filled or unknown or node.attributes.get_float("value", 0.0):
        raise port.refuse("operator")
    pads = trace.shapes.integers(node.inputs[1]) if len(node.inputs) > 1 else None
    amounts = node.attributes.get_ints("pads", ()) if pads is None else pads.reshape(-1).tolist()
    axes = trace.shapes.integers(node.inputs[3]) if len(node.inputs) > 3 else None
    places = range(port.layout.ndim) if axes is None else axes.reshape(-1).tolist()
    if len(amounts) != 2 * len(places):
        raise port.refuse("shape")
    for place, before, after in zip(places, amounts, amounts[len(places) :], strict=False):
        if port.layout.shape[place] > 1 and (before != 0 or after != 0):
            raise port.refuse("operator")
    same(port, trace)


def resize(port: Port, trace: Trace) -> None:
    """Interpolation along axes without units."""
    if port.node.attributes.get_string("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise port.refuse("operator")
    _unchanged_axes(port, trace)
    same(port, trace)


def reduce(port: Port, trace: Trace) -> None:
    """Means, sums, norms and extremes along axes without units."""
    node = port.node
    rank = trace.shapes.rank(node.inputs[0])
    axes = _axes(port, trace)
    if rank is None or axes is None or (port.is_input and port.position > 0):
        raise port.refuse("shape")
    places = sorted({a % rank for a in axes}) if axes else list(range(rank))
    keep = bool(node.attributes.get_int("keepdims", 1))
    if port.is_input:
        if any(port.layout.shape[p] > 1 for p in places):
            raise port.refuse("operator")
        layout = port.layout if keep else port.layout.squeeze(tuple(places))
        trace.couple(node.outputs[0], layout)
    else:
        layout = port.layout if keep else np.expand_dims(port.layout, tuple(places))
        if any(layout.shape[p] > 1 for p in places):
            raise port.refuse("operator")
        trace.operand(port, 0, layout)


def _axes(port: Port, trace: Trace) -> list[int] | None:
    """Return the axes of a reduction, Squeeze or Unsqueeze; None where they are not known."""
    node = port.node
    if "axes" in node.attributes:
        return list(node.attributes.get_ints("axes", ()))
    if len(node.inputs) < 2 or node.inputs[1] is None:
        return None if node.op_type == "Squeeze" else []
    axes = trace.shapes.integers(node.inputs[1])
    if axes is None or not all(isinstance(a, int) for a in axes.reshape(-1)):
        return None
    return [int(a) for a in axes.reshape(-1)]


def _unchanged_axes(port: Port, trace: Trace) -> None:
    shapes = [trace.shapes.shape(v) for v in (port.node.inputs[0], port.node.outputs[0])]
    if shapes[0] is None or shapes[1] is None or (port.is_input and port.position > 0):
        raise port.refuse("shape")
    for units, before, after in zip(port.layout.shape, shapes[0], shapes[1], strict=True):
        if units > 1 and before != after:
            raise port.refuse("operator")
