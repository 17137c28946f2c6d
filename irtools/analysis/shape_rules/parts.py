"""Parts of tensors: picked, cut, joined."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from irtools.analysis.dims import Dim, add, divide, is_named
from irtools.analysis.facts import Shape, ShapeFacts
from irtools.analysis.shape_rules.common import (
    input_at,
    int_attribute,
    ints_attribute,
    minimum,
    unknown,
    unknown_shape,
)

__all__ = ["concat", "embedding", "gather", "gather_elements", "gather_nd", "slice_rule", "split"]


def concat(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    shapes = [facts.shape(value) for value in node.inputs]
    known = [s for s in shapes if s is not None]
    if len(known) < len(shapes) or not known or not known[0]:
        return [None]
    rank = len(known[0])
    if any(len(s) != rank for s in known):
        return [None]
    axis = int_attribute(node, "axis", 0) % rank
    total: Dim = 0
    for s in known:
        total = add(total, s[axis])
    first = known[0]
    # Along the other axes all inputs agree; one that is a number or a name says the most.
    best = [next((s[a] for s in known if is_named(s[a])), first[a]) for a in range(rank)]
    return [(*best[:axis], total, *best[axis + 1 :])]


def gather(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    shape, indices = (facts.shape(value) for value in node.inputs[:2])
    if not shape or indices is None:
        return [None]
    axis = int_attribute(node, "axis", 0) % len(shape)
    return [shape[:axis] + indices + shape[axis + 1 :]]


def gather_nd(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    shape, indices = (facts.shape(value) for value in node.inputs[:2])
    batch = int_attribute(node, "batch_dims", 0)
    if shape is None or not indices or not isinstance(indices[-1], int):
        return [None]
    return [indices[:-1] + shape[batch + indices[-1] :]]


def gather_elements(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    return [facts.shape(node.inputs[1])]


def slice_rule(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    shape = facts.shape(node.inputs[0])
    if shape is None or len(node.inputs) < 3:
        return [None]
    given = [*node.inputs[1:], None, None]
    starts, ends, axes, steps = (facts.integers(value) for value in given[:4])
    if starts is None or (given[2] is not None and axes is None):
        return [unknown_shape(node, len(shape))]
    dims = list(shape)
    for index, axis in enumerate(range(len(starts)) if axes is None else axes):
        axis %= len(shape)
        end = None if ends is None else ends[index]
        step = 1 if given[3] is None else None if steps is None else steps[index]
        dims[axis] = _sliced(dims[axis], starts[index], end, step) or unknown(node, axis)
    return [tuple(dims)]


def _sliced(size: Dim, start: Dim | None, end: Dim | None, step: Dim | None) -> Dim | None:
    """The length of `range(size)[start:end:step]`, or None (also for 0, which is rare)."""
    if isinstance(size, int) and isinstance(start, int) and isinstance(end, int):
        return len(range(size)[start:end:step]) if isinstance(step, int) and step else None
    if start != 0 or step != 1 or end is None:
        return None
    if isinstance(end, int):
        if end >= 2**31 - 1:
            return size
        return add(size, end) if end < 0 else minimum(size, end)
    return minimum(end, size)


def split(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    shape = facts.shape(node.inputs[0])
    if not shape:
        return [None]
    axis = int_attribute(node, "axis", 0) % len(shape)
    sizes: Sequence[Dim] | None = ints_attribute(node, "split")
    if sizes is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        found = facts.integers(node.inputs[1])
        sizes = None if found is None else tuple(found)
    elif sizes is None:
        each = divide(shape[axis], len(node.outputs))
        sizes = None if each is None else (each,) * len(node.outputs)
    if sizes is None or len(sizes) != len(node.outputs):
        sizes = [unknown(node, axis, index) for index in range(len(node.outputs))]
    return [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]


def embedding(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """EmbedLayerNormalization: ids [B, S], table [V, D] -> [B, S, D]; the mask counts are [B]."""
    ids, table = facts.shape(node.inputs[0]), facts.shape(input_at(node, 2))
    if ids is None or table is None:
        return [None] * len(node.outputs)
    found: Shape = (*ids, table[-1])
    return [found, ids[:1], found][: len(node.outputs)]
