"""Why weights are left alone: one row for each reason, for all passes of the family.

A row is the counter of a report, the phrase that says what is counted, and where there is more to
say of a single weight, a sentence with places for it. Passes derive their counters from the rows
that their forms, and what finds their weights, may give.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from irtools.words import counted, tallied

__all__ = [
    "ALREADY",
    "CHANNELS",
    "DTYPE",
    "EMBEDDING",
    "EXCLUDED",
    "EXTREME",
    "LISTED",
    "NONFINITE",
    "OPERATOR",
    "OPSET",
    "OVERRIDABLE",
    "PRECISION",
    "RANGE",
    "ROUNDED",
    "ROWS",
    "SHAPE",
    "SHARED",
    "SMALL",
    "SUBGRAPH",
    "TARGET",
    "UNREAD",
    "Reason",
    "Skips",
]


@dataclass(frozen=True)
class Reason:
    """One row of the table.

    Attributes:
        counter: Name of the counter (`num-skipped-small`).
        phrase: What is counted, in the plural.
        note: A sentence on one weight, with places to fill in; empty for none.
    """

    counter: str
    phrase: str
    note: str = ""

    def because(self, **found: object) -> Reason:
        """Return the reason with its sentence filled in."""
        return replace(self, note=self.note.format(**found))


ALREADY = Reason("num-already-quantized", "nodes that were quantized before")
EXCLUDED = Reason("num-skipped-excluded", "weights left in float32 because an option excludes them")
SMALL = Reason(
    "num-skipped-small", "weights left in float32 because they are smaller than min-size"
)
EMBEDDING = Reason("num-skipped-embedding", "embedding tables left in float32 by option")
NONFINITE = Reason(
    "num-skipped-nonfinite",
    "weights left in float32 because they hold NaN or infinity",
    "{name!r} holds NaN or infinity: left in float32",
)
EXTREME = Reason(
    "num-skipped-extreme",
    "weights multiplied in float32 because products may overflow",
    "{name!r} is so large that products may overflow",
)
CHANNELS = Reason(
    "num-skipped-channels",
    "Conv weights multiplied in float32 because one range cannot serve all channels of their "
    "result",
    "{name!r} is multiplied in float32: one range for its result would leave {lost} of {channels} "
    "only a few steps, because others are much larger",
)
RANGE = Reason(
    "num-skipped-range",
    "weights multiplied in float32 because an activation has no usable range",
    "{name!r} has no usable range: {reason}",
)
DTYPE = Reason("num-skipped-dtype", "weights left alone because of their type")
TARGET = Reason(
    "num-skipped-target",
    "weights left in float32 because the target is not known to run their form",
)
PRECISION = Reason(
    "num-skipped-precision",
    "weights left in float32 because fewer bits would keep too little of them",
)
SHAPE = Reason(
    "num-skipped-shape",
    "weights left in float32 because no block divides their channels",
    "{name!r} stays in float32: no block size from 16 to {block} divides its input channels",
)
ROWS = replace(SHAPE, note="{name!r} keeps 8 bits: no block size divides its rows")
SHARED = Reason("num-skipped-shared", "weights left in float32 because another node reads them so")
ROUNDED = Reason(
    "num-skipped-rounded",
    "weights left in float32 because a QuantizeLinear of the model itself rounds them",
)
OVERRIDABLE = Reason(
    "num-skipped-overridable", "weights that are inputs too, for a caller to override"
)
OPERATOR = Reason("num-skipped-operator", "weights of Conv and of other operators, left in float32")
UNREAD = Reason("num-skipped-operator", "large constants that no product reads, left in float32")
LISTED = Reason(
    "num-skipped-attributes", "operators whose numbers are attributes, such as trees, left alone"
)
OPSET = Reason(
    "num-skipped-opset", "weights left in float32 because the opset is too old for their form"
)
SUBGRAPH = Reason("num-skipped-subgraph", "constant products in subgraphs or functions, left alone")


@dataclass
class Skips:
    """What a pass leaves alone, and what it has to say of it.

    Attributes:
        counts: By counter, in the order in which reasons came up.
        notes: Sentences for the report.
        phrases: What the counters mean.
    """

    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    phrases: dict[str, str] = field(default_factory=dict)

    def add(self, reason: Reason, count: int = 1) -> None:
        """Count what is left alone for a reason, and keep its sentence."""
        if count:
            self.counts[reason.counter] += count
            self.phrases[reason.counter] = reason.phrase
        self.note(reason.note)

    def take(self, other: Skips) -> None:
        """Count what others have found."""
        self.counts.update(other.counts)
        self.phrases.update(other.phrases)
        self.notes.extend(other.notes)

    def note(self, *sentences: str) -> None:
        """Keep sentences for the report, each of them once."""
        self.notes.extend(s for s in dict.fromkeys(sentences) if s and s not in self.notes)

    def has(self, *reasons: Reason) -> bool:
        """Whether something was left alone for one of the reasons."""
        return any(self.counts[reason.counter] for reason in reasons)

    def copy(self) -> Skips:
        """Return the same, to be counted on without a change to this."""
        return Skips(self.counts.copy(), list(self.notes), dict(self.phrases))

    def tell(self, *, found: bool, instead: str = "") -> None:
        """Note what stayed as it was, and why.

        Args:
            found: Next to what a pass quantizes; else it quantizes nothing.
            instead: What to use in its place.
        """
        if not found:
            reasons = self._reasons(self.counts.items())
            said = reasons or "no constant is multiplied by or looked up in"
            self.note(f"nothing was quantized: {said}{f'; {instead}' if instead else ''}")
            return
        ordered = [item for item in self.counts.most_common() if item[0] != ALREADY.counter]
        if ordered:
            self.note(f"not quantized: {self._reasons(ordered)}")
        if before := self.counts[ALREADY.counter]:
            self.note(f"left as quantized before: {counted(before, 'node')}")

    def _reasons(self, items: Iterable[tuple[str, int]]) -> str:
        return "; ".join(tallied(count, self.phrases[name]) for name, count in items)
