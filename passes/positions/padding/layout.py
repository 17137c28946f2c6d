"""Elements in other places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from irtools.analysis.dims import add
from irtools.editing import array_of
from irtools.passes.positions.padding.base import (
    Form,
    Pad,
    Pads,
    Reader,
    TokenAxes,
    aligned,
    axes_moved,
    axes_of,
    changed,
    keep_changed,
    moved,
    union,
    without,
)
from irtools.passes.positions.padding.lookups import slices_first
from irtools.passes.positions.padding.regroup import carried

__all__ = [
    "along_another_axis",
    "expand",
    "reshape",
    "silent",
    "slice_rule",
    "squeeze",
    "transpose",
    "unsqueeze",
]


def reshape(node: ir.Node, reader: Reader) -> Sequence[Pads]:
    pads = reader.of(node.inputs[0])
    source = reader.facts.shape(node.inputs[0])
    result = reader.facts.shape(node.outputs[0])
    if source is None or result is None:
        return (keep_changed(pads),)
    return (moved(pads, lambda place: carried(place, source, result, reader.sizes)),)


def transpose(node: ir.Node, reader: Reader) -> Sequence[Pads]:
    pads, rank = reader.of(node.inputs[0]), reader.facts.rank(node.inputs[0])
    if rank is None:
        return (keep_changed(pads),)
    perm = list(node.attributes.get_ints("perm") or range(rank)[::-1])
    return (axes_moved(pads, {axis: perm.index(axis) for axis in range(rank)}),)


def unsqueeze(node: ir.Node, reader: Reader) -> Sequence[Pads]:
    pads, axes = reader.of(node.inputs[0]), axes_of(node)
    rank = reader.facts.rank(node.outputs[0])
    if rank is None or axes is None:
        return (keep_changed(pads),)
    new = {axis % rank for axis in axes}
    return (axes_moved(pads, dict(enumerate(a for a in range(rank) if a not in new))),)


def squeeze(node: ir.Node, reader: Reader) -> Sequence[Pads]:
    pads, axes = reader.of(node.inputs[0]), axes_of(node)
    rank = reader.facts.rank(node.inputs[0])
    if rank is None or axes is None:
        return (keep_changed(pads),)
    gone = {axis % rank for axis in axes}
    kept = [axis for axis in range(rank) if axis not in gone]
    return (axes_moved(pads, {axis: place for place, axis in enumerate(kept)}),)


def expand(node: ir.Node, reader: Reader) -> Sequence[Pads]:
    rank = reader.facts.rank(node.outputs[0])
    if rank is None:
        return (keep_changed(reader.of(node.inputs[0])),)
    return (aligned(node.inputs[0], rank, reader),)


def slice_rule(node: ir.Node, reader: Reader) -> Sequence[Pads]:
    pads, rank = reader.of(node.inputs[0]), reader.facts.rank(node.inputs[0])
    axes = array_of(node.inputs[3]) if len(node.inputs) > 3 else None
    if rank is None or axes is None:
        return (keep_changed(pads),)
    cut = {int(axis) % rank for axis in axes.reshape(-1)}
    found: dict[TokenAxes, Pad] = {}
    for place, pad in pads.items():
        if not cut & place.axes:
            found[place] = pad
        elif place.form is not Form.OWN and (after := _cut(place, cut, node, reader)) is not None:
            found[after] = pad
        elif place.batch in cut or place.joined or not slices_first(node):
            keep_changed({place: pad})
    return (found,)


def _cut(place: TokenAxes, cut: set[int], node: ir.Node, reader: Reader) -> TokenAxes | None:
    """Return the axes after the ends of flat rows were cut off, or the start of shifted ones.

    The element (i, j) of [S, W - 1] is number i (W - 1) + j of [S, W], in its row i where j >= i:
    of j >= S - 1 all are, and so they are up to j - i < W.
    """
    start, step = (
        None if len(node.inputs) <= index else reader.facts.integers(node.inputs[index])
        for index in (1, 4)
    )
    if start is None or start.size != 1 or (len(node.inputs) > 4 and not _is_one(step)):
        return None
    (first,) = start.reshape(-1)
    if place.form is Form.FLAT:
        return place if cut == {place.position} and first == 0 else None
    _, positions = reader.sizes
    if cut != {place.position + 1} or first != add(positions, 1, -1):
        return None
    return TokenAxes(place.batch, place.position, place.inner)


def _is_one(step: np.ndarray | None) -> bool:
    return step is not None and step.size == 1 and step.reshape(-1)[0] == 1


def along_another_axis(node: ir.Node, reader: Reader) -> Sequence[Pads]:
    """Concat and Split."""
    rank = reader.facts.rank(node.outputs[0])
    parts = [reader.of(value) for value in node.inputs]
    if rank is None:
        return (keep_changed(union(parts)),)
    axis = node.attributes.get_int("axis", 0) % rank
    found = union([without(part, {axis}) for part in parts])
    if node.op_type == "Concat" and len(parts) > 1:
        found = changed(found)
    return (found,) * len(node.outputs)


def silent(node: ir.Node, reader: Reader) -> Sequence[Pads]:
    """Reads sizes alone."""
    return ()
