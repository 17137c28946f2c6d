"""Integers that count along axes: what exporters index a mask by.

    mask[arange(B)[:, None, None, None], arange(S)]

is written as GatherND of the two, broadcast and joined, or as Gather of the flat mask by their sum,
`b S + s`. Both take each element of the mask once, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import onnx_ir as ir

from irtools.analysis.dims import Dim, add, multiply
from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import array_of, producer_of

__all__ = ["Count", "count_of", "joined_counts"]

_MAX_DEPTH = 32


@dataclass(frozen=True)
class Count:
    """An integer tensor: `start + sum(step i)` over the index i of each axis that is named.

    Attributes:
        start: At index 0 of all axes.
        steps: Axis, from 0, to what it grows by along it.
    """

    start: Dim = 0
    steps: Mapping[int, Dim] = field(default_factory=dict)


def count_of(value: ir.Value | None, facts: SymbolicShapes, depth: int = 0) -> Count | None:
    """Return how a tensor counts; None where it does not, or where that is not known."""
    if value is None or depth > _MAX_DEPTH:
        return None
    known = facts.integers(value)
    if known is not None and known.size == 1:
        (item,) = known.reshape(-1)
        return None if isinstance(item, bool) else Count(item)
    node = value.producer()
    rule = None if node is None or node.domain != "" else _RULES.get(node.op_type)
    return None if node is None or rule is None else rule(node, facts, depth + 1)


def joined_counts(value: ir.Value | None, facts: SymbolicShapes) -> list[Count] | None:
    """Return how each column of indices [..., n] counts, with their common axes before the last."""
    node = producer_of(value, "Concat")
    rank = facts.rank(value)
    if node is None or rank is None or node.attributes.get_int("axis", 0) % rank != rank - 1:
        return None
    found = [count_of(part, facts) for part in node.inputs]
    sizes = [facts.shape(part) for part in node.inputs]
    if any(size is None or len(size) != rank or size[-1] != 1 for size in sizes):
        return None
    kept = [count for count in found if count is not None]
    return kept if len(kept) == len(found) else None


def _range(node: ir.Node, facts: SymbolicShapes, depth: int) -> Count | None:
    start, step = (count_of(node.inputs[place], facts, depth) for place in (0, 2))
    if start is None or step is None or start.steps or step.steps:
        return None
    return Count(start.start, {0: step.start})


def _same(node: ir.Node, facts: SymbolicShapes, depth: int) -> Count | None:
    return count_of(node.inputs[0], facts, depth)


def _axes(node: ir.Node) -> list[int] | None:
    if "axes" in node.attributes:
        return list(node.attributes.get_ints("axes", ()))
    found = array_of(node.inputs[1]) if len(node.inputs) > 1 else None
    return None if found is None else [int(axis) for axis in found.reshape(-1)]


def _unsqueeze(node: ir.Node, facts: SymbolicShapes, depth: int) -> Count | None:
    count, axes = _same(node, facts, depth), _axes(node)
    rank = facts.rank(node.outputs[0])
    if count is None or axes is None or rank is None:
        return None
    new = {axis % rank for axis in axes}
    old = [axis for axis in range(rank) if axis not in new]
    return Count(count.start, {old[axis]: step for axis, step in count.steps.items()})


def _expand(node: ir.Node, facts: SymbolicShapes, depth: int) -> Count | None:
    count = _same(node, facts, depth)
    return None if count is None else _shifted(count, node.inputs[0], node.outputs[0], facts)


def _reshape(node: ir.Node, facts: SymbolicShapes, depth: int) -> Count | None:
    """One axis that is longer than 1, among axes of 1."""
    count = _same(node, facts, depth)
    source, result = facts.shape(node.inputs[0]), facts.shape(node.outputs[0])
    if count is None or source is None or result is None:
        return None
    before = [axis for axis, size in enumerate(source) if size != 1]
    after = [axis for axis, size in enumerate(result) if size != 1]
    if len(before) != 1 or len(after) != 1 or source[before[0]] != result[after[0]]:
        return count if not count.steps else None
    step = count.steps.get(before[0])
    return Count(count.start, {} if step is None else {after[0]: step})


def _sum(sign: int) -> Callable[[ir.Node, SymbolicShapes, int], Count | None]:
    def rule(node: ir.Node, facts: SymbolicShapes, depth: int) -> Count | None:
        total = Count()
        for place, value in enumerate(node.inputs[:2]):
            count = count_of(value, facts, depth)
            own = None if count is None else _shifted(count, value, node.outputs[0], facts)
            if own is None:
                return None
            factor = sign if place else 1
            steps = dict(total.steps)
            for axis, step in own.steps.items():
                steps[axis] = add(steps.get(axis, 0), step, factor)
            total = Count(add(total.start, own.start, factor), steps)
        return total

    return rule


def _times(node: ir.Node, facts: SymbolicShapes, depth: int) -> Count | None:
    counts = [count_of(value, facts, depth) for value in node.inputs]
    for place, factor in enumerate(counts):
        other, value = counts[1 - place], node.inputs[1 - place]
        if factor is None or other is None or factor.steps:
            continue
        own = _shifted(other, value, node.outputs[0], facts)
        if own is not None:
            steps = {axis: multiply(step, factor.start) for axis, step in own.steps.items()}
            return Count(multiply(own.start, factor.start), steps)
    return None


def _shifted(
    count: Count, value: ir.Value | None, result: ir.Value, facts: SymbolicShapes
) -> Count | None:
    own, shape = facts.shape(value), facts.shape(result)
    if own is None or shape is None:
        return count if not count.steps else None
    shift = len(shape) - len(own)
    # An axis that is made longer repeats what it counted.
    if any(own[axis] != shape[axis + shift] for axis in count.steps):
        return None
    return Count(count.start, {axis + shift: step for axis, step in count.steps.items()})


_RULES: Mapping[str, Callable[[ir.Node, SymbolicShapes, int], Count | None]] = MappingProxyType(
    {
        "Add": _sum(1),
        "Cast": _same,
        "Expand": _expand,
        "Identity": _same,
        "Mul": _times,
        "Range": _range,
        "Reshape": _reshape,
        "Sub": _sum(-1),
        "Unsqueeze": _unsqueeze,
    }
)
