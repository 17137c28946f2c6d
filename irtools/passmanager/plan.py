"""Plans: ordered, printable, serialisable lists of decisions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from irtools.errors import UsageError
from irtools.files import fault_of_document, json_text

__all__ = ["Decision", "Json", "Plan"]

_FORMAT = "irtools-plan"
_VERSION = 2
"""Rises when what passes write into `Decision.data` can no longer be read."""
_REMEDY = "make a new one with `irc plan --json`"

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"


@dataclass(frozen=True)
class Decision:
    """One thing that a pass will do.

    Attributes:
        subject: What it is done to: a value, node or module name.
        action: What is done, in words (`remove 3 of 12 heads`, `s8 per channel`).
        cost: Predicted loss, in the plan's `cost_unit`; comparable within one plan.
        gain: Predicted gain, in the plan's `gain_unit`; comparable within one plan.
        data: All that `apply` needs, as JSON.
    """

    subject: str
    action: str
    cost: float = 0.0
    gain: float = 0.0
    data: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Decisions in the order in which they are to be applied, the safest first.

    Attributes:
        pass_text: The pass and options that made the plan, as pipeline text.
        decisions: The decisions.
        cost_unit: Unit of `Decision.cost` (`relative squared error`).
        gain_unit: Unit of `Decision.gain` (`bytes`, `ms`).
        notes: What a reader must know, such as parts left alone and why.
        counters: Counts of what the plan leaves alone (`num-skipped-...`).
        remedies: What to try where the numbers turn out to suffer too much, the first the most
            promising, each beginning with pipeline text or an option.
    """

    pass_text: str
    decisions: tuple[Decision, ...]
    cost_unit: str = ""
    gain_unit: str = ""
    notes: tuple[str, ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict)
    remedies: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.decisions)

    def prefix(self, length: int) -> Plan:
        """Return the plan of the first `length` decisions."""
        return replace(self, decisions=self.decisions[:length])

    def to_json(self) -> str:
        """Write the plan as JSON. `from_json` reads it back equal."""
        return json_text(
            {
                "format": _FORMAT,
                "version": _VERSION,
                "pass": self.pass_text,
                "cost_unit": self.cost_unit,
                "gain_unit": self.gain_unit,
                "notes": list(self.notes),
                "counters": dict(self.counters),
                "remedies": list(self.remedies),
                "decisions": [
                    {
                        "subject": d.subject,
                        "action": d.action,
                        "cost": d.cost,
                        "gain": d.gain,
                        "data": d.data,
                    }
                    for d in self.decisions
                ],
            },
            any_number=True,
        )

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read a plan that `to_json` wrote.

        Raises:
            UsageError: The text is not such a plan, or one of another version.
        """
        try:
            document = json.loads(text)
            if fault := fault_of_document(document, _FORMAT, _VERSION, _REMEDY):
                raise UsageError(f"the plan {fault}")
            return cls(
                document["pass"],
                tuple(Decision(**decision) for decision in document["decisions"]),
                document["cost_unit"],
                document["gain_unit"],
                tuple(document["notes"]),
                document["counters"],
                tuple(document.get("remedies", ())),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"not a plan written by irtools: {error}") from error
