"""Sums over an axis: reductions, normalizations and products."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from irtools.passes.positions.padding.base import (
    UNKNOWN,
    MixedError,
    Pad,
    Pads,
    Reader,
    TokenAxes,
    aligned,
    axes_moved,
    axes_of,
    changed,
    keep_changed,
    union,
    without,
)

__all__ = [
    "gemm",
    "log_softmax",
    "matmul",
    "normalize",
    "reduce",
    "rows_of_product",
    "skip_normalize",
    "softmax",
]


def reduce(node: ir.Node, reader: Reader) -> Sequence[Pads]:
    pads, axes = reader.of(node.inputs[0]), axes_of(node)
    rank = reader.facts.rank(node.inputs[0])
    if rank is None or not axes:
        return (keep_changed(pads),)
    gone = {axis % rank for axis in axes}
    stays = without(pads, gone)
    if node.attributes.get_int("keepdims", 1):
        return (changed(stays),)
    kept = [axis for axis in range(rank) if axis not in gone]
    return (changed(axes_moved(stays, {axis: place for place, axis in enumerate(kept)})),)


def normalize(node: ir.Node, reader: Reader) -> Sequence[Pads]:
    """LayerNormalization and RMSNormalization over the axes from `axis` on."""
    pads, rank = reader.of(node.inputs[0]), reader.facts.rank(node.inputs[0])
    for value in node.inputs[1:]:
        keep_changed(reader.of(value))
    if rank is None:
        return (keep_changed(pads),)
    first = node.attributes.get_int("axis", -1) % rank
    stays = changed(without(pads, range(first, rank)))
    return (stays,) * len(node.outputs)


def skip_normalize(node: ir.Node, reader: Reader) -> Sequence[Pads]:
    rank = reader.facts.rank(node.inputs[0])
    parts = [aligned(value, rank or 0, reader) for value in node.inputs]
    joined = changed(union(parts))
    stays = without(joined, {(rank or 0) - 1})
    return (stays,) * len(node.outputs)


def softmax(node: ir.Node, reader: Reader) -> Sequence[Pads]:
    """Closed scores get the weight 0, and the others what they got."""
    pads, rank = reader.of(node.inputs[0]), reader.facts.rank(node.inputs[0])
    if rank is None or "axis" not in node.attributes:
        return (keep_changed(pads),)
    axis = node.attributes.get_int("axis", -1) % rank
    if axis != rank - 1:  # Before opset 13 all axes from this one on are one.
        return (keep_changed(pads),)
    found: dict[TokenAxes, Pad] = {}
    for place, pad in pads.items():
        if place.position == axis and not place.joined and pad.closed:
            found[place] = Pad(0.0, kept=True)
        elif axis in place.axes:
            keep_changed({place: pad})
        elif not pad.kept:
            found[place] = Pad(None, kept=False)
    return (found,)


def log_softmax(node: ir.Node, reader: Reader) -> Sequence[Pads]:
    """Along an axis that is not the place's."""
    pads, rank = reader.of(node.inputs[0]), reader.facts.rank(node.inputs[0])
    if rank is None or "axis" not in node.attributes:
        return (keep_changed(pads),)
    axis = node.attributes.get_int("axis", -1) % rank
    return (changed(without(pads, range(axis, rank))),)


def matmul(node: ir.Node, reader: Reader) -> Sequence[Pads]:
    return (product_of(node, 0, 1, reader),)


def product_of(node: ir.Node, left: int, right: int, reader: Reader) -> Pads:
    """Return what a matrix product of two inputs holds; sums are over weights that are 0 there."""
    a, b = node.inputs[left], node.inputs[right]
    ranks = reader.facts.rank(a), reader.facts.rank(b)
    if ranks[0] is None or ranks[1] is None or min(ranks[0], ranks[1]) < 2:
        return keep_changed({**reader.of(a), **reader.of(b)})
    rank = max(ranks[0], ranks[1])
    rows, columns = aligned(a, rank, reader), aligned(b, rank, reader)
    check_sum(
        {place: pad for place, pad in rows.items() if rank - 1 in place.axes},
        {place: pad for place, pad in columns.items() if rank - 2 in place.axes},
    )
    kept = union(
        [
            {place: pad for place, pad in rows.items() if rank - 1 not in place.axes},
            {place: pad for place, pad in columns.items() if rank - 2 not in place.axes},
        ]
    )
    return {place: _product(pad) for place, pad in kept.items() if _product(pad) != UNKNOWN}


def _product(pad: Pad) -> Pad:
    """A row of zeros gives zeros."""
    return pad if pad.number == 0 else Pad(None, pad.kept)


def check_sum(rows: Pads, columns: Pads) -> None:
    """Check that what is summed up at padding is 0 times something finite.

    Args:
        rows: Of the left operand, along the axis that is summed up; columns: of the right one.

    Raises:
        MixedError: It is not.
    """
    pads = (*rows.items(), *columns.items())
    zero = {
        (place.batch, place.inner)
        for place, pad in pads
        if pad.number == 0 and pad.kept and not place.joined
    }
    for place, pad in pads:
        if not pad.kept and (place.joined or (place.batch, place.inner) not in zero):
            raise MixedError


def gemm(node: ir.Node, reader: Reader) -> Sequence[Pads]:
    for value in node.inputs[1:]:
        keep_changed(reader.of(value))
    if node.attributes.get_int("transA", 0):
        return (keep_changed(reader.of(node.inputs[0])),)
    return (changed(without(reader.of(node.inputs[0]), {1})),)


def rows_of_product(node: ir.Node, reader: Reader) -> Sequence[Pads]:
    """A product with a weight, by rows of the first input."""
    rank = reader.facts.rank(node.inputs[0])
    for value in node.inputs[1:]:
        keep_changed(reader.of(value))
    if rank is None:
        return (keep_changed(reader.of(node.inputs[0])),)
    return (changed(without(reader.of(node.inputs[0]), {rank - 1})),)
