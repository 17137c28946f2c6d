"""Whether goals hold on the figures that are quoted."""

from __future__ import annotations

from collections.abc import Sequence

from irtools.errors import BudgetError
from irtools.goals import Goals, Observed
from irtools.report.entries import GoalEntry

__all__ = ["check_kept", "outcomes"]


def outcomes(goals: Goals, quoted: Observed) -> tuple[GoalEntry, ...]:
    """Return for each goal whether the figure that is quoted keeps it.

    What is chosen keeps a goal with the whole interval of its figure, on the samples that are
    chosen by. Here the figure itself is held against the bound, on samples that nothing was chosen
    by, and of time on a measurement that nothing was chosen by.
    """
    return tuple(
        GoalEntry(str(goal), goal.shown(quoted) or "not measured", kept=not goal.misses(quoted))
        for goal in goals
    )


def check_kept(found: Sequence[GoalEntry]) -> None:
    """Refuse a result of which a goal is not kept.

    Raises:
        BudgetError: Says which, and the figure.
    """
    broken = [f"{one.goal}: {one.figure}" for one in found if not one.kept]
    if broken:
        raise BudgetError(
            f"the result does not keep {'; '.join(broken)} on the figures that are quoted: nothing "
            "was written; allow more, or give more samples to choose by"
        )
