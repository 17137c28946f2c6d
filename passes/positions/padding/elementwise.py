"""Elementwise operators: by numbers where they are known, else by what holds of any."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import onnx_ir as ir

from irtools.passes.positions.padding.base import (
    CLOSED,
    MixedError,
    Number,
    Pad,
    Pads,
    Reader,
    TokenAxes,
    aligned,
    keep_changed,
    pad_of,
)
from irtools.passes.positions.padding.numbers import compute, constant_number

__all__ = ["elementwise", "identity", "quantized", "unary"]


def elementwise(node: ir.Node, reader: Reader) -> Sequence[Pads]:
    """y = f(a, b, ...): by numbers where they are known, else by what f does to closed scores."""
    if not any(reader.of(value) for value in node.inputs):
        return ()
    rank = reader.facts.rank(node.outputs[0])
    if rank is None:
        raise MixedError
    parts = [aligned(value, rank, reader) for value in node.inputs]
    constant = [pad_of(constant_number(value), True) for value in node.inputs]
    found: dict[TokenAxes, Pad] = {}
    for place in dict.fromkeys(place for part in parts for place in part):
        pads = [part.get(place, own) for part, own in zip(parts, constant, strict=True)]
        found[place] = combined(node, pads)
    return (found,)


def combined(node: ir.Node, pads: Sequence[Pad]) -> Pad:
    """Return what an elementwise operator makes of its inputs at padding."""
    rule = _COMBINED.get(node.op_type) if node.domain == "" else None
    found = None if rule is None else rule(pads)
    if found is not None:
        return found
    kept = all(pad.kept for pad in pads)
    numbers = [pad.number for pad in pads if pad.number is not None]
    number = compute(node, numbers) if len(numbers) == len(pads) else None
    return pad_of(number, kept)


def _absorbing(number: Number) -> Callable[[Sequence[Pad]], Pad | None]:
    """0 x y = 0, false and y = false, true or y = true: whatever y is, as long as it is finite."""

    def rule(pads: Sequence[Pad]) -> Pad | None:
        holding = [pad for pad in pads if pad.number == number and pad.number is not None]
        return Pad(number, any(pad.kept for pad in holding)) if holding else None

    return rule


def _sum(pads: Sequence[Pad]) -> Pad | None:
    if not any(pad.closed for pad in pads) or all(pad.number is not None for pad in pads):
        return None
    return Pad(None, all(pad.kept for pad in pads), closed=True)


def _difference(pads: Sequence[Pad]) -> Pad | None:
    low, taken = pads
    closes = taken.number is not None and taken.number >= -CLOSED
    if (low.number is not None and taken.number is not None) or not (low.closed or closes):
        return None
    return Pad(None, low.kept and taken.kept, closed=True)


def _where(pads: Sequence[Pad]) -> Pad | None:
    test, yes, no = pads
    if test.number is None:
        both = yes.closed and no.closed
        return Pad(None, all(pad.kept for pad in pads), closed=True) if both else None
    chosen = yes if test.number else no
    return Pad(chosen.number, test.kept and chosen.kept, chosen.closed)


def _smallest(pads: Sequence[Pad]) -> Pad | None:
    closed = any(pad.closed for pad in pads)
    return Pad(None, all(pad.kept for pad in pads), closed=True) if closed else None


def _largest(pads: Sequence[Pad]) -> Pad | None:
    closed = all(pad.closed for pad in pads)
    return Pad(None, all(pad.kept for pad in pads), closed=True) if closed else None


_COMBINED: Mapping[str, Callable[[Sequence[Pad]], Pad | None]] = MappingProxyType(
    {
        "Add": _sum,
        "And": _absorbing(False),
        "Max": _largest,
        "Min": _smallest,
        "Mul": _absorbing(0),
        "Or": _absorbing(True),
        "Sub": _difference,
        "Sum": _sum,
        "Where": _where,
    }
)


def unary(node: ir.Node, reader: Reader) -> Sequence[Pads]:
    """y = f(x) with constant parameters."""
    for value in node.inputs[1:]:
        keep_changed(reader.of(value))
    found = {}
    for place, pad in reader.of(node.inputs[0]).items():
        number = None if pad.number is None else compute(node, [pad.number])
        closed = pad.closed and node.op_type == "Cast"
        found[place] = Pad(number, pad.kept, closed or pad_of(number, True).closed)
    return (found,)


def identity(node: ir.Node, reader: Reader) -> Sequence[Pads]:
    return (reader.of(node.inputs[0]),)


def quantized(node: ir.Node, reader: Reader) -> Sequence[Pads]:
    """One scale for all or one per channel; no range is taken from what is quantized."""
    return unary(node, reader)
