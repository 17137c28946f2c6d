"""Rows of tables, single positions, and masks by index."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from irtools.analysis.counting import Count, count_of, joined_counts
from irtools.analysis.dims import Dim
from irtools.editing import array_of
from irtools.passes.positions.padding.base import (
    Pad,
    Pads,
    Reader,
    TokenAxes,
    axes_moved,
    keep_changed,
)

__all__ = ["gather", "gather_elements", "gather_nd", "slices_first", "takes_first"]


def gather(node: ir.Node, reader: Reader) -> Sequence[Pads]:
    """Rows of a table by ids; the first position, which is computed always; a mask by index."""
    data, indices = node.inputs
    ranks = reader.facts.rank(data), reader.facts.rank(indices)
    pads = reader.of(data)
    if ranks[0] is None or ranks[1] is None:
        return (keep_changed({**pads, **reader.of(indices)}),)
    axis = node.attributes.get_int("axis", 0) % ranks[0]
    shift = ranks[1] - 1
    found: dict[TokenAxes, Pad] = {}
    for place, pad in pads.items():
        if axis not in place.axes:
            moved = {own: own + (shift if own > axis else 0) for own in place.axes}
            found |= axes_moved({place: pad}, moved)
        elif (counted := _flat(place, indices, reader)) is not None:
            found[counted.moved(axis)] = pad
        elif axis != place.position or place.batch == axis or not takes_first(indices):
            keep_changed({place: pad})
    for place, pad in reader.of(indices).items():
        found[place.moved(axis)] = Pad(None, pad.kept)
    return (found,)


def _flat(place: TokenAxes, indices: ir.Value | None, reader: Reader) -> TokenAxes | None:
    """x[b S + s] where texts and positions are one axis, or x[s] where there is one text."""
    count, shape = count_of(indices, reader.facts), reader.facts.shape(indices)
    if count is None or shape is None or count.start != 0:
        return None
    steps = {step: axis for axis, step in count.steps.items() if shape[axis] != 1}
    sizes = {axis: shape[axis] for axis in steps.values()}
    _, positions = reader.sizes
    if place.batch is None and list(steps) == [1] and sizes[steps[1]] == positions:
        return TokenAxes(None, steps[1])
    if place.batch != place.position or set(steps) != {1, positions}:
        return None
    found = TokenAxes(steps[positions], steps[1])
    return found if (sizes[steps[positions]], sizes[steps[1]]) == reader.sizes else None


def gather_nd(node: ir.Node, reader: Reader) -> Sequence[Pads]:
    """x[arange(B), arange(S)], the two broadcast to one shape."""
    data, indices = node.inputs
    pads, shape = reader.of(data), reader.facts.shape(node.outputs[0])
    keep_changed(reader.of(indices))
    counts = joined_counts(indices, reader.facts)
    if shape is None or counts is None or node.attributes.get_int("batch_dims", 0) != 0:
        return (keep_changed(pads),)
    found: dict[TokenAxes, Pad] = {}
    for place, pad in pads.items():
        batch = _axis(counts, place.batch, shape, reader.sizes[0])
        position = _axis(counts, place.position, shape, reader.sizes[1])
        if position is None or (batch is None) != (place.batch is None) or len(counts) > 2:
            keep_changed({place: pad})
        else:
            found[TokenAxes(batch, position)] = pad
    return (found,)


def _axis(
    counts: Sequence[Count], column: int | None, shape: Sequence[Dim], size: Dim
) -> int | None:
    """Return the axis along which a column of indices counts from 0 up to a size."""
    if column is None or column >= len(counts) or counts[column].start != 0:
        return None
    steps = {axis: step for axis, step in counts[column].steps.items() if shape[axis] != 1}
    axis = next(iter(steps), None)
    return axis if axis is not None and steps == {axis: 1} and shape[axis] == size else None


def gather_elements(node: ir.Node, reader: Reader) -> Sequence[Pads]:
    """Along an axis that is not the place's."""
    rank = reader.facts.rank(node.outputs[0])
    found = {}
    for number, value in enumerate(node.inputs):
        axis = node.attributes.get_int("axis", 0) % (rank or 1)
        for place, pad in reader.of(value).items():
            if rank is None or (number == 0 and axis in place.axes):
                keep_changed({place: pad})
            elif not pad.kept:
                found[place] = Pad(None, kept=False)
    return (found,)


def takes_first(indices: ir.Value | None) -> bool:
    """Whether indices are 0 alone: the first position, which always is computed."""
    array = array_of(indices)
    return array is not None and array.size == 1 and int(array.reshape(())) == 0


def slices_first(node: ir.Node) -> bool:
    """Whether a Slice takes the first position alone, of one axis."""
    parts = [array_of(value) for value in node.inputs[1:]]
    if any(part is None or part.size != 1 for part in parts) or len(parts) < 3:
        return False
    start, end, _, *steps = (int(part.reshape(())) for part in parts if part is not None)
    return (start, end) == (0, 1) and all(step == 1 for step in steps)
