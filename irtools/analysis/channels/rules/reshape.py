"""Channels through Reshape and Flatten."""

from __future__ import annotations

from collections.abc import Sequence

from irtools.analysis.channels.groups import Trace
from irtools.analysis.channels.index_map import IndexMap
from irtools.analysis.channels.rules.port import Port, Refine
from irtools.analysis.channels.rules.sizes import edit_target
from irtools.analysis.dims import Dim, multiply, shape_text

__all__ = ["reshape"]


def reshape(port: Port, trace: Trace) -> None:
    """Row-major order decides where the units go.

    Equal sizes at both ends of the two shapes keep their places. What is left in the middle is
    seen as one flat axis: the slot is merged into it and split out of it again. A split of finer
    units into (heads, width) asks for heads instead.
    """
    node = port.node
    x, y = node.inputs[0], node.outputs[0]
    shape_x, shape_y = trace.shapes.shape(x), trace.shapes.shape(y)
    if x is None or shape_x is None or shape_y is None or (port.is_input and port.position > 0):
        trace.block(node, "its shapes are not known")
        return
    here, there = (shape_x, shape_y) if port.is_input else (shape_y, shape_x)
    moved = _moved(port.axis, port.map, here, there)
    if moved is None:
        shapes = f"{shape_text(here)} -> {shape_text(there)}"
        trace.block(node, f"it mixes the channels with other axes ({shapes})")
        return
    axis, mapping = moved
    trace.couple(y if port.is_input else x, axis, mapping)
    if node.op_type == "Reshape":
        target = (axis, mapping) if port.is_input else (port.axis, port.map)
        edit_target(node, trace, *target)


def _moved(
    axis: int, mapping: IndexMap, here: Sequence[Dim], there: Sequence[Dim]
) -> tuple[int, IndexMap] | None:
    head = _common(here, there)
    tail = _common(here[head:][::-1], there[head:][::-1])
    if axis < head:
        return axis, mapping
    if axis >= len(here) - tail:
        return axis - len(here) + len(there), mapping
    if mapping.offset:
        return None
    flat = _merged(axis - head, mapping, here[head : len(here) - tail])
    middle = there[head : len(there) - tail]
    if flat is None or not middle:
        return None
    split = _split_out(flat, middle)
    return None if split is None else (head + split[0], split[1])


def _common(a: Sequence[Dim], b: Sequence[Dim]) -> int:
    count = 0
    for left, right in zip(a, b, strict=False):
        if left != right:
            break
        count += 1
    return count


def _merged(axis: int, mapping: IndexMap, middle: Sequence[Dim]) -> IndexMap | None:
    inner = mapping.inner
    for size in middle[axis + 1 :]:
        if not isinstance(size, int):
            return None
        inner *= size
    outer = mapping.outer
    for size in middle[:axis]:
        outer = outer * size if outer is not None and isinstance(size, int) else None
    return IndexMap(mapping.units, inner, outer)


def _split_out(flat: IndexMap, middle: Sequence[Dim]) -> tuple[int, IndexMap] | None:
    after: Dim = 1
    for axis in reversed(range(len(middle))):
        size = middle[axis]
        found = _fits(flat, size, after, tuple(middle[:axis]))
        if found is not None:
            return axis, found
        after = multiply(after, size)
    _ask_for_coarser(flat, middle)
    return None


def _fits(flat: IndexMap, size: Dim, after: Dim, before: tuple[Dim, ...]) -> IndexMap | None:
    """Whether the units lie whole on an axis of `size` with `after` elements after it."""
    if not isinstance(after, int) or flat.inner % after:
        return None
    inner = flat.inner // after
    if not isinstance(size, int):
        # The slowest axis takes whatever is left, as batch x heads in one.
        return None if before else IndexMap(flat.units, inner, None)
    if size % (flat.units * inner):
        return None
    outer = size // (flat.units * inner)
    return IndexMap(flat.units, inner, outer) if outer == 1 or flat.outer is not None else None


def _ask_for_coarser(flat: IndexMap, middle: Sequence[Dim]) -> None:
    """Ask for units that are whole rows of one of the axes, the slowest axis first."""
    if flat.outer != 1 or flat.inner != 1 or not all(isinstance(d, int) for d in middle):
        return
    sizes = [d for d in middle if isinstance(d, int)]
    candidates = []
    for axis, size in enumerate(sizes[:-1]):
        before, after = 1, 1
        for d in sizes[:axis]:
            before *= d
        for d in sizes[axis + 1 :]:
            after *= d
        if size > 1 and before * size * after == flat.units:
            candidates.append((before, size, after))
    if candidates:
        raise Refine(*candidates)
