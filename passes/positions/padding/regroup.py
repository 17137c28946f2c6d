"""Where texts and positions lie after a Reshape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from irtools.analysis.dims import Dim, add, divide, multiply
from irtools.analysis.shapes import Shape
from irtools.passes.positions.padding.base import Form, TokenAxes

__all__ = ["carried", "product"]

_Group = tuple[Sequence[int], Sequence[int]]
"""Neighbouring axes before and after that hold the same elements, in the same order."""


def carried(
    place: TokenAxes, source: Shape, result: Shape, sizes: tuple[Dim, Dim]
) -> TokenAxes | None:
    """Return where a place lies after a Reshape; None where its axes are not axes any more.

    Positions must stay an axis of their own, or be joined with the texts: [B, S] to [B S] and back.
    Heads may be joined to the texts: [B, h] to [B h] and back.

    Args:
        place: In the source.
        source: Shape before.
        result: Shape after.
        sizes: Of texts and positions.
    """
    if place.form is Form.FLAT:
        return _shifted(place, source, result, sizes)
    if place.form is Form.SHIFTED:
        return None
    groups = [(_wide(a, source), _wide(b, result)) for a, b in _groups(source, result)]
    of = {axis: group for group in groups for axis in group[0]}
    positions = of.get(place.position, ((), ()))
    if place.batch == place.position:
        return _parted(place, positions, result, sizes)
    if place.batch in positions[0]:
        joins = list(positions[0]) == [place.batch, place.position] and place.inner == 1
        return (
            TokenAxes(positions[1][0], positions[1][0])
            if joins and len(positions[1]) == 1
            else None
        )
    if len(positions[1]) != 1 or positions[0][0] != place.position:
        return None
    moved = replace(place, position=positions[1][0])
    if len(positions[0]) > 1:
        width = product([source[axis] for axis in positions[0][1:]])
        moved = replace(moved, form=Form.FLAT, width=width)
    if place.batch is None:
        return moved
    texts = of.get(place.batch)
    return None if texts is None else _with_heads(moved, texts, source, result)


def product(sizes: Sequence[Dim]) -> Dim:
    """Return the number of elements."""
    total: Dim = 1
    for size in sizes:
        total = multiply(total, size)
    return total


def _groups(source: Shape, result: Shape) -> Iterator[_Group]:
    """Yield the smallest groups of axes; ends where sizes cannot be compared."""
    i = j = 0
    while i < len(source) or j < len(result):
        first, second = i, j
        before: Dim = 1
        after: Dim = 1
        while before != after or (i, j) == (first, second):
            if j < len(result) and (i == len(source) or _divides(after, before, result[j])):
                after, j = multiply(after, result[j]), j + 1
            elif i < len(source):
                before, i = multiply(before, source[i]), i + 1
            else:
                return
        yield range(first, i), range(second, j)


def _divides(part: Dim, whole: Dim, following: Dim) -> bool:
    """Whether the result has fewer elements so far than the source, and its next axis fits in."""
    return part != whole and divide(whole, multiply(part, following)) is not None


def _wide(axes: Sequence[int], shape: Shape) -> Sequence[int]:
    return [axis for axis in axes if shape[axis] != 1]


def _parted(
    place: TokenAxes, group: _Group, result: Shape, sizes: tuple[Dim, Dim]
) -> TokenAxes | None:
    before, after = group
    if list(before) != [place.position]:
        return None
    if len(after) == 1:
        return TokenAxes(after[0], after[0])
    if len(after) == 2 and (result[after[0]], result[after[1]]) == sizes:
        return TokenAxes(after[0], after[1])
    return None


def _shifted(
    place: TokenAxes, source: Shape, result: Shape, sizes: tuple[Dim, Dim]
) -> TokenAxes | None:
    """[.., S W] cut and read as [.., S, W - 1]."""
    last = len(source) - 1
    if place.position != last or len(result) != len(source) + 1 or source[:-1] != result[:-2]:
        return None
    if result[last] != sizes[1] or result[-1] != add(place.width, 1, -1):
        return None
    return replace(place, form=Form.SHIFTED)


def _with_heads(place: TokenAxes, group: _Group, source: Shape, result: Shape) -> TokenAxes | None:
    before, after = group
    if not before or not after or before[0] != place.batch:
        return None
    inner = multiply(place.inner, product([source[axis] for axis in before[1:]]))
    left = divide(inner, product([result[axis] for axis in after[1:]]))
    return None if left is None else replace(place, batch=after[0], inner=left)
