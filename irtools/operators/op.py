"""What is declared of an operator: the facts that no rule has to work out."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

__all__ = ["RULES", "Fold", "Kind", "Op", "Port", "op_key"]

RULES = ("shape", "value", "bounds", "cost", "channels", "rows", "scales", "no-op")
"""Names of the tables of rules, in the order of `irc operators`."""


class Kind(enum.Enum):
    """What an operator does, where a rule for all of a kind can be right."""

    UNARY = "unary"
    """y = f(x) for each element of the first input; further inputs are parameters of f."""

    ELEMENTWISE = "elementwise"
    """y = f(a, b, ...) for each element, the inputs broadcast to one shape."""

    LAYOUT = "layout"
    """Elements of the first input in other places, each unchanged and none added."""

    REDUCTION = "reduction"
    """The axes named by `axes` (attribute or second input) become 1 or go."""

    NORMALIZATION = "normalization"
    """The shape of the first input stays; each result depends on a whole axis or more."""

    POOL = "pool"
    """Windows over [batch, channels, spatial...]; channels do not mix."""

    PRODUCT = "product"
    """Matrix product of the first input with `weight`."""

    CONVOLUTION = "convolution"
    """Convolution of the first input by `weight`."""

    ATTENTION = "attention"
    RECURRENT = "recurrent"

    SOURCE = "source"
    """Makes values of attributes, sizes or random numbers."""

    SEQUENCE = "sequence"
    """Takes or makes sequences or optionals, which have no shape."""

    CONTROL = "control"
    """Runs graphs that it has as attributes."""

    TEXT = "text"
    """Works on strings."""

    OTHER = "other"
    """No rule fits but the operator's own."""


class Fold(enum.Enum):
    """How certain the result is that a compiler computes in place of the runtime."""

    EXACT = "exact"
    """Moves data, counts, or rounds correctly by IEEE 754: one right answer."""

    ROUNDING = "rounding"
    """The last bits depend on who computes them."""


@dataclass(frozen=True)
class Port:
    """An input that holds a weight or a bias, and the axes on which channels lie.

    Attributes:
        input: Which input, from 0.
        in_axis: Axis that is summed up, None where there is no single one.
        out_axis: Axis of the results' channels; both are swapped by `transB` where it is set.
    """

    input: int
    in_axis: int | None = None
    out_axis: int | None = None


@dataclass(frozen=True)
class Op:
    """One operator. What the ONNX standard says of it is read from its schema, not repeated here.

    Attributes:
        name: Operator type, as ONNX spells it.
        domain: "" is the standard's.
        kind: What it does; gives it the rules of that kind.
        weight: Input that a product or convolution takes its weight from.
        bias: Input that is added to its results.
        half_safe: Whether float16 and bfloat16 arithmetic is accurate enough: False where it is
            known to overflow or to lose too much, None where that is not known.
        fold: How certain a result computed at compile time is; None: never computed.
        moves: Results are elements of the inputs or constants, none rounded; true of `LAYOUT`.
        random: Two runs may give two answers.
        integers: Its weight is stored as integers.
        size_inputs: Inputs whose values decide the sizes of the results.
        finds: The results are as large as what is found in the values of the inputs.
        typed_by: Input whose element type the first result has, where no type variable of a
            schema says so; None: the first input if there is no schema at all.
        rules: Rules of its own by name of their table (one of `RULES`); how a plug-in adds them.
            They precede those of the table.
    """

    name: str
    domain: str = ""
    kind: Kind = Kind.OTHER
    weight: Port | None = None
    bias: Port | None = None
    half_safe: bool | None = None
    fold: Fold | None = None
    moves: bool = False
    random: bool = False
    integers: bool = False
    size_inputs: tuple[int, ...] = ()
    finds: bool = False
    typed_by: int | None = None
    rules: Mapping[str, Callable[..., Any]] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def key(self) -> str:
        """The name as reports and tables spell it."""
        return op_key(self.domain, self.name)

    @property
    def only_moves(self) -> bool:
        """Whether its results hold no number that was computed."""
        return self.moves or self.kind is Kind.LAYOUT


def op_key(domain: str, name: str) -> str:
    """Return `Conv` for an operator of the standard, `domain::Name` for any other."""
    return name if domain in ("", "ai.onnx") else f"{domain}::{name}"
