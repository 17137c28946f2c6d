"""States: models that a search has reached, and what is known of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from irtools.goals import Goal, Goals, Interval, Observed
from irtools.instruments import Latency, Rollback, is_slower
from irtools.metrics import Fidelity
from irtools.passmanager import Pipeline, Step

__all__ = ["State", "only_changes", "shortfall"]

_LOW_SQNR_DB, _LOW_AGREEMENT = 20.0, 0.99
"""What a model keeps of the original's outputs where no goal says how much it may lose."""


@dataclass(frozen=True)
class State:
    """A model that passes made of the original.

    Attributes:
        steps: The original's and one for each pass.
        seen: What goals are decided by.
        fidelity: Closeness to the original on the samples to choose by; None: not measured.
    """

    steps: tuple[Step, ...]
    seen: Observed
    fidelity: Fidelity | None = None

    @property
    def pipeline(self) -> Pipeline:
        """The passes that made it."""
        return Pipeline(*(step.pass_ for step in self.steps[1:]))

    @property
    def is_close(self) -> bool:
        """Whether it answers as the original does, where no goal says what it may lose."""
        found = self.fidelity
        if found is None:
            return True
        if found.nonfinite:
            return False
        if found.agreement is not None:
            return found.agreement >= _LOW_AGREEMENT
        return not found.sqnr_db < _LOW_SQNR_DB

    @property
    def closeness(self) -> str:
        """How close it is, in words."""
        found = self.fidelity
        if found is None:
            return ""
        if found.agreement is not None:
            return f"{100 * found.agreement:.2f} % of the answers agree with the original's"
        return f"{found.sqnr_db:.1f} dB of the original's outputs are kept"

    @property
    def figures(self) -> dict[str, Interval]:
        """What the report shows of it."""
        found = dict(self.seen.result)
        if self.fidelity is not None:
            found["sqnr"] = Interval.exact(self.fidelity.sqnr_db)
            if self.fidelity.agreement is not None:
                found["agreement"] = Interval.exact(self.fidelity.agreement)
        return found

    @property
    def rollbacks(self) -> tuple[Rollback, ...]:
        """What the accuracy guard did not let pass."""
        found = (step.figures.get(Rollback) for step in self.steps)
        return tuple(one for one in found if one is not None)

    @property
    def size(self) -> float:
        """Bytes on disk."""
        found, _ = self.seen.find("size", None)
        return math.inf if found is None else found.value

    @property
    def speed(self) -> Interval | None:
        """How many times faster than the original it is; None: not timed."""
        return self.seen.find("speedup", None)[0]

    def is_slower_than(self, other: State) -> bool:
        """Whether it is slower, beyond noise."""
        mine, theirs = (one.steps[-1].figures.get(Latency) for one in (self, other))
        if mine is None:
            return False
        return is_slower(() if theirs is None else theirs.results, mine.results)


def only_changes(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return the steps that changed the model, with new numbers.

    What was measured of a model after a pass that left it as it was goes to the pass before.
    """
    kept = [steps[0]]
    for step in steps[1:]:
        if step.modified:
            step.index = len(kept)
            kept.append(step)
        else:
            found = step.figures.found.values()
            kept[-1].figures.put(*(one for one in found if not isinstance(one, Rollback)))
    for step in kept:
        step.total = len(kept) - 1
    return tuple(kept)


def shortfall(goals: Goals, seen: Observed) -> float:
    """Return how far the worst goal on time and size is from its bound; 1 or less: all are kept.

    It is the unfavourable end of a figure's interval that counts.
    """
    return max((_short(goal, seen) for goal in goals.needing("times", "file")), default=0.0)


def _short(goal: Goal, seen: Observed) -> float:
    found, base = seen.find(goal.kind.figure, goal.metric)
    if found is None or (goal.relative and not base):
        return math.inf
    worst = found.low if goal.kind.at_least else found.high
    value = worst / base if goal.relative and base else worst
    return goal.bound / value if goal.kind.at_least else value / goal.bound
