"""What a detector finds, and what a detector is."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from irtools.causes.facts import Facts

__all__ = ["Cause", "Finding", "Gap"]


class Gap(enum.Enum):
    """In what respect the second model lags the first."""

    SLOWER = "slower"
    LARGER = "larger"
    WORSE = "worse"


@dataclass(frozen=True)
class Finding:
    """One cause that was found.

    Attributes:
        cause: Name of the detector.
        gap: What it explains.
        text: One sentence for a person.
        amount: How much of the gap it explains: milliseconds of `slower`, bytes of `larger`, of
            `worse` the share of the noise (0 to 1). None: it holds by the target's table or by
            proof, and nothing was measured.
        evidence: Figures that show it, a line each.
        command: What answers it, ready to be copied.
        subjects: Modules, nodes or tensors that it is about, the most important first.
        share: Of the observed gap, 0 to 1; filled in by the ranking.
    """

    cause: str
    gap: Gap
    text: str
    amount: float | None
    evidence: tuple[str, ...]
    command: str
    subjects: tuple[str, ...] = ()
    share: float | None = None


class Cause(ABC):
    """Looks for one cause. It reads facts, measures nothing itself, and keeps no state.

    Attributes:
        name: Of the cause (`float-fallback`).
        gap: What it explains.
        is_place: It says where, not why: where a cause explains as much, that comes first.
    """

    name: ClassVar[str]
    gap: ClassVar[Gap]
    is_place: ClassVar[bool] = False

    @abstractmethod
    def find(self, facts: Facts) -> Iterator[Finding]:
        """Yield what is found; nothing where the cause does not hold, or the facts are absent."""

    def finding(
        self,
        text: str,
        amount: float | None,
        *evidence: str,
        command: str,
        subjects: tuple[str, ...] = (),
    ) -> Finding:
        """Return a finding of this cause."""
        return Finding(self.name, self.gap, text, amount, evidence, command, subjects)
