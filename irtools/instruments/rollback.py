"""The figure of a pass that was rolled back in part or as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from irtools.measure.figures import Figure, Level, Measured, Verdict
from irtools.words import counted

__all__ = ["Rollback"]


@dataclass(frozen=True)
class Rollback(Figure):
    """What the accuracy guard kept of a pass.

    Attributes:
        kept: Decisions that were applied; 0 where the whole pass was dropped.
        planned: Decisions that the pass made; 0 where it makes no plan.
        drop: Loss of the kept model, of what was measured.
        full_drop: Loss with every decision applied.
        goals: What must be kept, as text.
        judge: What was measured (`accuracy`, `top-1 agreement`).
        trials: Models evaluated.
    """

    key: ClassVar[str] = "rollback"
    rank: ClassVar[int] = 10

    kept: int
    planned: int
    drop: float
    full_drop: float
    goals: str
    judge: str
    trials: int

    def __str__(self) -> str:
        if not self.planned:
            return "dropped"
        return f"rolled back to {self.kept} of {counted(self.planned, 'decision')}"

    @classmethod
    def verdicts(cls, rows: Sequence[Measured]) -> Iterator[Verdict]:
        for row in rows:
            if found := cls.of(row):
                name = row.text.partition(":")[0]
                yield Verdict(Level.NOTE, f"{name}: {found}, to keep {found.goals}")
