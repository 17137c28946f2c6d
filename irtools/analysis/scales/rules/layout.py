"""Operators that move elements: the layout is moved as the tensor is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irtools.analysis.dims import Dim, multiply
from irtools.editing import constant_of
from irtools.analysis.scales.rules.elementwise import same
from irtools.analysis.scales.trace import Port, Trace
from irtools.analysis.scales.units import FIXED, Layout, aligned

__all__ = [
    "concat",
    "expand",
    "gather",
    "pad",
    "reduce",
    "reshape",
    "resize",
    "slice_rule",
    "split",
    "squeeze",
    "tile",
    "transpose",
    "unsqueeze",
]


def transpose(port: Port, trace: Trace) -> None:
    rank = port.layout.ndim
    perm = list(port.node.attributes.get_ints("perm", tuple(reversed(range(rank)))))
    if port.is_input:
        trace.couple(port.node.outputs[0], port.layout.transpose(perm))
    else:
        trace.operand(port, 0, port.layout.transpose(np.argsort(perm)))


def reshape(port: Port, trace: Trace) -> None:
    """Reshape and Flatten: row-major order decides where the units go."""
    node = port.node
    x, y = trace.shapes.shape(node.inputs[0]), trace.shapes.shape(node.outputs[0])
    if x is None or y is None or (port.is_input and port.position > 0):
        raise port.refuse("shape")
    here, there = (x, y) if port.is_input else (y, x)
    moved = _reshaped(port.layout, here, there)
    if moved is None:
        raise port.refuse("shape")
    if port.is_input:
        trace.couple(node.outputs[0], moved)
    else:
        trace.operand(port, 0, moved)


def _reshaped(layout: Layout, here: Sequence[Dim], there: Sequence[Dim]) -> Layout | None:
    """Return a layout after a reshape; None where units fall together with other axes."""
    parts = _segments(here, there)
    if parts is None:
        return None
    order, sizes = [], []
    for left, right in parts:
        own = layout.shape[left[0] : left[1]]
        static = _numbers(here[left[0] : left[1]]), _numbers(there[right[0] : right[1]])
        if all(n == 1 for n in own):
            order += list(own)
            sizes += [1] * (right[1] - right[0])
        elif static[0] is not None and static[1] is not None:
            order += list(static[0])
            sizes += list(static[1])
        elif right[1] - right[0] == left[1] - left[0] == 1:
            return None  # Units on an axis of unknown size.
        else:
            return None
    return np.asarray(np.broadcast_to(layout, order).reshape(sizes))


def _segments(
    here: Sequence[Dim], there: Sequence[Dim]
) -> list[tuple[tuple[int, int], tuple[int, int]]] | None:
    """Split two shapes of one tensor into runs of axes that hold the same elements.

    From the front, and where symbols stop that from the end; the middle is one run.
    """
    front = _runs(here, there)
    at = front[-1][0][1] if front else 0, front[-1][1][1] if front else 0
    back = _runs(here[at[0] :][::-1], there[at[1] :][::-1])
    m, n = len(here), len(there)
    ends = [((m - b, m - a), (n - d, n - c)) for (a, b), (c, d) in reversed(back)]
    middle = (at[0], ends[0][0][0] if ends else m), (at[1], ends[0][1][0] if ends else n)
    between = [middle] if middle[0][0] < middle[0][1] or middle[1][0] < middle[1][1] else []
    return [*front, *between, *ends]


def _runs(
    here: Sequence[Dim], there: Sequence[Dim]
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    found: list[tuple[tuple[int, int], tuple[int, int]]] = []
    i = j = 0
    while i < len(here) and j < len(there):
        a, b, left, right = i + 1, j + 1, here[i], there[j]
        while left != right:
            if isinstance(left, int) and isinstance(right, int) and left < right:
                grown, shape = a, here
            elif isinstance(left, int) and isinstance(right, int):
                grown, shape = b, there
            else:
                return found
            if grown >= len(shape) or not isinstance(shape[grown], int):
                return found
            if shape is here:
                left, a = multiply(left, here[a]), a + 1
            else:
                right, b = multiply(right, there[b]), b + 1
        found.append(((i, a), (j, b)))
        i, j = a, b
    return found


def _numbers(dims: Sequence[Dim]) -> list[int] | None:
    numbers = [d for d in dims if isinstance(d, int)]
    return numbers if len(numbers) == len(dims) else None


def squeeze(port: Port, trace: Trace) -> None:
    _stretch(port, trace, wide=port.is_input)


def unsqueeze(port: Port, trace: Trace) -> None:
    _stretch(port, trace, wide=not port.is_input)


def _stretch(port: Port, trace: Trace, *, wide: bool) -> None:
    """Drop axes of one element, or add them: `wide` says that this port has them."""
    node = port.node
    there = node.outputs[0] if port.is_input else node.inputs[0]
    rank = trace.shapes.rank(there)
    axes = axes_of(port, trace)
    if rank is None or (port.is_input and port.position > 0):
        raise port.refuse("shape")
    if axes is None:
        shape = trace.shapes.shape(node.inputs[0])
        if node.op_type != "Squeeze" or shape is None:
            raise port.refuse("shape")
        axes = [i for i, size in enumerate(shape) if size == 1]
    full = port.layout.ndim if wide else rank
    places = tuple(sorted(axis % full for axis in axes))
    if wide:
        layout = port.layout.squeeze(places)
    else:
        layout = np.expand_dims(port.layout, places)
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
        n != 1 and size > 1
        for n, size in zip(repeats.reshape(-1), port.layout.shape, strict=False)
    ):
        raise port.refuse("shape")
    same(port, trace)


def concat(port: Port, trace: Trace) -> None:
    """Along its axis each input has its part; along any other all are divided alike."""
    node, layout = port.node, port.layout
    axis = node.attributes.get_int("axis", 0) % layout.ndim
    if layout.shape[axis] == 1:
        trace.couple(node.outputs[0], layout)
        for position in range(len(node.inputs)):
            trace.operand(port, position, layout)
        return
    sizes = _sizes([trace.shapes.shape(value) for value in node.inputs], axis)
    if sizes is None:
        raise port.refuse("shape")
    starts = np.cumsum([0, *sizes])
    if port.is_input:
        shape = list(layout.shape)
        shape[axis] = int(starts[-1])
        whole = np.full(shape, FIXED, np.int64)
        _put(whole, layout, axis, range(int(starts[port.position]), int(starts[port.position + 1])))
        trace.couple(node.outputs[0], whole)
        return
    for position, start in enumerate(starts[:-1]):
        part = layout.take(range(int(start), int(start) + sizes[position]), axis)
        if not trace.units.is_fixed(part):
            trace.operand(port, position, part)


def split(port: Port, trace: Trace) -> None:
    """Along its axis each output has its part; along any other all are divided alike."""
    node, layout = port.node, port.layout
    if port.is_input and port.position > 0:
        raise port.refuse("shape")
    axis = node.attributes.get_int("axis", 0) % layout.ndim
    if layout.shape[axis] == 1:
        trace.operand(port, 0, layout)
        for value in node.outputs:
            trace.couple(value, layout)
        return
    sizes = _sizes([trace.shapes.shape(value) for value in node.outputs], axis)
    if sizes is None:
        raise port.refuse("shape")
    starts = np.cumsum([0, *sizes])
    if port.is_input:
        for value, start, size in zip(node.outputs, starts[:-1], sizes, strict=True):
            trace.couple(value, layout.take(range(int(start), int(start) + size), axis))
        return
    start = int(starts[port.position])
    _spread(port, trace, axis, int(starts[-1]), range(start, start + sizes[port.position]))


def slice_rule(port: Port, trace: Trace) -> None:
    """Axes without units may be cut in any way; on the others the numbers must be known."""
    node, rank = port.node, port.layout.ndim
    if port.is_input and port.position > 0:
        raise port.refuse("shape")
    operands = [trace.shapes.integers(value) for value in node.inputs[1:]]
    if len(node.inputs) < 3 or any(
        o is None for o, v in zip(operands, node.inputs[1:], strict=True) if v is not None
    ):
        numbers: list[list[object]] | None = None
    else:
        numbers = [[] if o is None else list(o.reshape(-1)) for o in operands]
    axes = None
    if numbers is not None:
        axes = numbers[2] if len(numbers) > 2 and numbers[2] else list(range(len(numbers[0])))
    elif len(node.inputs) > 3 and operands[2] is not None:
        axes = list(operands[2].reshape(-1))
    if axes is None or not all(isinstance(a, int) for a in axes):
        raise port.refuse("shape")
    places = [int(a) % rank for a in axes]  # type: ignore[call-overload]
    with_units = [p for p in places if port.layout.shape[p] > 1]
    if not with_units:
        same(port, trace)
        return
    shape = trace.shapes.shape(node.inputs[0])
    size = None if shape is None else shape[with_units[0]]
    if numbers is None or len(with_units) > 1 or not isinstance(size, int):
        raise port.refuse("shape")
    at = places.index(with_units[0])
    steps = numbers[3][at] if len(numbers) > 3 and numbers[3] else 1
    cut = (numbers[0][at], numbers[1][at], steps)
    if not all(isinstance(n, int) for n in cut):
        raise port.refuse("shape")
    picked = list(range(size))[slice(*cut)]
    if port.is_input:
        trace.couple(node.outputs[0], port.layout.take(picked, with_units[0]))
    else:
        _spread(port, trace, with_units[0], size, picked)


def gather(port: Port, trace: Trace) -> None:
    """Rows of a table have its columns' units; along other axes indices must be constant."""
    node = port.node
    data = node.inputs[0]
    ranks = [trace.shapes.rank(value) for value in node.inputs]
    if ranks[0] is None or ranks[1] is None or (port.is_input and port.position > 0):
        raise port.refuse("shape")
    axis = node.attributes.get_int("axis", 0) % ranks[0]
    if port.is_input:
        if port.layout.shape[axis] > 1:
            raise port.refuse("shape")
        shape = (*port.layout.shape[:axis], *([1] * ranks[1]), *port.layout.shape[axis + 1 :])
        trace.couple(node.outputs[0], port.layout.reshape(shape))
        return
    picked = port.layout.shape[axis : axis + ranks[1]]
    if any(n > 1 for n in picked):
        raise port.refuse("shape")
    shape = (*port.layout.shape[:axis], 1, *port.layout.shape[axis + ranks[1] :])
    layout = port.layout.reshape(shape)
    if constant_of(data) is not None:
        trace.scale(node, 0, layout, -1)
    else:
        trace.couple(data, layout)


def pad(port: Port, trace: Trace) -> None:
    """Zeros around axes without units."""
    node = port.node
    value = constant_of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
    filled = value is not None and (value.numpy() != 0).any()
    unknown = len(node.inputs) > 2 and node.inputs[2] is not None and value is None
    if filled or unknown or node.attributes.get_float("value", 0.0):
        raise port.refuse("operator")
    _unchanged_axes(port, trace)
    same(port, trace)


def resize(port: Port, trace: Trace) -> None:
    """Interpolation along axes without units."""
    _unchanged_axes(port, trace)
    same(port, trace)


def reduce(port: Port, trace: Trace) -> None:
    """Means, sums, norms and extremes along axes without units."""
    node = port.node
    rank = trace.shapes.rank(node.inputs[0])
    axes = axes_of(port, trace)
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


def axes_of(port: Port, trace: Trace) -> list[int] | None:
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
    for units, before, after in zip(port.layout.shape, *shapes, strict=True):
        if units > 1 and before != after:
            raise port.refuse("operator")


def _sizes(shapes: Sequence[Sequence[Dim] | None], axis: int) -> list[int] | None:
    sizes = [None if shape is None else shape[axis] for shape in shapes]
    numbers = [size for size in sizes if isinstance(size, int)]
    return numbers if len(numbers) == len(sizes) else None


def _put(whole: Layout, part: Layout, axis: int, places: Sequence[int] | range) -> None:
    index: list[object] = [slice(None)] * whole.ndim
    index[axis] = list(places)
    whole[tuple(index)] = part  # type: ignore[index]


def _spread(
    port: Port, trace: Trace, axis: int, size: int, places: Sequence[int] | range
) -> None:
    """Couple the input of a node that takes some channels of it; the others keep their scale."""
    shape = list(port.layout.shape)
    shape[axis] = size
    whole = np.full(shape, FIXED, np.int64)
    _put(whole, port.layout, axis, places)
    trace.operand(port, 0, whole)
