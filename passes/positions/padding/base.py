"""What tensors hold where a text is padding: the vocabulary of `unpad`.

A mask [B, S] says which positions of which texts are padding. Of every tensor it is known where
its batch and position axes lie, and what it then holds at padding: what the model as it was holds
there (`kept`), or something else, because that position is no longer computed. At all other
positions every tensor holds what it did: that is what is proved.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import onnx_ir as ir

from irtools.analysis.dims import Dim
from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import array_of

__all__ = [
    "Form",
    "CLOSED",
    "UNKNOWN",
    "MixedError",
    "Number",
    "Pad",
    "PaddingRule",
    "Pads",
    "TokenAxes",
    "Reader",
    "aligned",
    "axes_moved",
    "axes_of",
    "changed",
    "keep_changed",
    "moved",
    "pad_of",
    "union",
    "without",
]

Number: TypeAlias = "bool | int | float"

CLOSED = -1e4
"""What is added to a score so that its weight is 0: exp(-1e4 + s) is 0 in float32 for s < 9,800."""


class Form(enum.Enum):
    """How positions lie along their axis."""

    OWN = "one after the other"
    FLAT = "the rows of all positions one after the other, in one axis"
    SHIFTED = "as FLAT, read in rows that are one element shorter: in each row lies what was before"


@dataclass(frozen=True)
class TokenAxes:
    """Where the texts and positions of a mask lie in a tensor.

    Attributes:
        batch: Axis of the texts; None where there is one text only.
        position: Axis of the positions; equal to `batch` where both are one axis, texts first.
        inner: How many rows of the batch axis each text has, where heads were joined to it.
        form: How positions lie along their axis.
        width: Elements of the row of a position, where rows are not an axis.
    """

    batch: int | None
    position: int
    inner: Dim = 1
    form: Form = Form.OWN
    width: Dim = 0

    @property
    def axes(self) -> frozenset[int]:
        """The axes that it takes."""
        own = {self.position, self.position + (self.form is Form.SHIFTED)}
        return frozenset(own if self.batch is None else own | {self.batch})

    @property
    def joined(self) -> bool:
        """Whether positions are no axis of their own."""
        return self.batch == self.position or self.form is not Form.OWN

    def moved(self, offset: int) -> TokenAxes:
        """Return the same axes in a tensor with `offset` more in front."""
        batch = None if self.batch is None else self.batch + offset
        return replace(self, batch=batch, position=self.position + offset)


@dataclass(frozen=True)
class Pad:
    """What a tensor holds at padding.

    Attributes:
        number: The same everywhere there; None: not known, but finite.
        kept: Whether the model as it was holds the same.
        closed: Whether it is so low a score that a Softmax gives it no weight.
    """

    number: Number | None = None
    kept: bool = True
    closed: bool = False


UNKNOWN = Pad()
"""What the model as it was holds, whatever that is."""

Pads: TypeAlias = Mapping[TokenAxes, Pad]
"""Of one tensor. Places that are not named hold what they did."""


class MixedError(Exception):
    """A node reads padding into other positions, or nothing is known of how it reads."""


def keep_changed(pads: Pads) -> Pads:
    """Return what is known of a result that reads all positions.

    Raises:
        MixedError: Not all of them hold what they did.
    """
    if any(not pad.kept for pad in pads.values()):
        raise MixedError
    return {}


class Reader(Protocol):
    """What a rule asks."""

    @property
    def facts(self) -> SymbolicShapes:
        """Shapes of the model."""
        ...

    @property
    def sizes(self) -> tuple[Dim, Dim]:
        """Of texts and positions."""
        ...

    def of(self, value: ir.Value | None) -> Pads:
        """What a tensor holds at padding."""
        ...


PaddingRule: TypeAlias = Callable[[ir.Node, Reader], Sequence[Pads]]
"""Returns what the results hold, the first ones; further ones hold what they did.

Raises:
    MixedError: They may not.
"""


def pad_of(number: Number | None, kept: bool) -> Pad:
    """Return a content by its number."""
    return Pad(number, kept, number is not None and number <= CLOSED)


def aligned(value: ir.Value | None, rank: int, reader: Reader) -> Pads:
    """Return what an input holds, by the axes of a result of `rank` that it is broadcast to."""
    pads = reader.of(value)
    if not pads:
        return {}
    own = reader.facts.rank(value)
    if own is None or own > rank:
        return keep_changed(pads)
    return {place.moved(rank - own): pad for place, pad in pads.items()}


def moved(pads: Pads, move: Callable[[TokenAxes], TokenAxes | None]) -> Pads:
    found = {}
    for place, pad in pads.items():
        moved = move(place)
        if moved is None:
            keep_changed({place: pad})
        else:
            found[moved] = pad
    return found


def axes_moved(pads: Pads, to: Mapping[int, int]) -> Pads:
    def move(place: TokenAxes) -> TokenAxes | None:
        if not all(axis in to for axis in place.axes):
            return None
        batch = None if place.batch is None else to[place.batch]
        if place.form is Form.SHIFTED and to[place.position + 1] != to[place.position] + 1:
            return None
        return replace(place, batch=batch, position=to[place.position])

    return moved(pads, move)


def without(pads: Pads, axes: Iterable[int]) -> Pads:
    """Return the places that do not lie on axes that are read as a whole.

    Raises:
        MixedError: One that does has changed.
    """
    whole = set(axes)
    keep_changed({place: pad for place, pad in pads.items() if place.axes & whole})
    return {place: pad for place, pad in pads.items() if not place.axes & whole}


def changed(pads: Pads) -> Pads:
    """Return what has changed, to something that is not known."""
    return {place: Pad(None, kept=False) for place, pad in pads.items() if not pad.kept}


def union(parts: Sequence[Pads]) -> Pads:
    found: dict[TokenAxes, Pad] = {}
    for part in parts:
        for place, pad in part.items():
            if place not in found or not pad.kept:
                found[place] = pad
    return found


def axes_of(node: ir.Node) -> list[int] | None:
    """Return `axes`, an attribute or the second input; None where they are not known."""
    if "axes" in node.attributes:
        return list(node.attributes.get_ints("axes", ()))
    found = array_of(node.inputs[1]) if len(node.inputs) > 1 else None
    return None if found is None else [int(axis) for axis in found.reshape(-1)]
