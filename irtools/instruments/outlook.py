"""How long a run will still take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from irtools.instruments.budget import Budget
from irtools.passmanager import Exactness, Instrument, Stage, Step

__all__ = ["Outlook"]

_FLOPS = 2e11
"""Of a usual CPU, until a run of the model was timed."""
_POSITIONS = 64
_SECONDS_PER_PASS, _SECONDS_PER_BYTE = 1.0, 2e-8
_CHILD_SECONDS = 1.5
_OF_BENCH = 0.7
"""Part of the bound on a comparison that it takes, mostly."""


class Outlook(Instrument):
    """Estimates the time left from the plan, corrected by how long the passes so far took.

    Args:
        kinds: What the passes promise, in order.
        budget: The plan.
        parameters: Of the model.
        checks: Whether numbers are compared pass by pass.
        tell: Called with the passes done, their number and the seconds left, before the first
            run, when its cost is known, and after each pass.
    """

    name: ClassVar[str] = "outlook"
    stage: ClassVar[Stage] = Stage.SHOW

    def __init__(
        self,
        kinds: Sequence[Exactness],
        budget: Budget,
        parameters: int,
        checks: bool,
        tell: Callable[[int, int, float], None],
    ) -> None:
        self._kinds = tuple(kinds)
        self._budget = budget
        self._parameters = parameters
        self._checks = checks
        self._tell = tell
        self._started = budget.clock()

    def start(self) -> None:
        """Tell what is to be expected before anything ran."""
        self._started = self._budget.clock()
        self._tell(0, len(self._kinds), self._sum(0))

    def begin(self, step: Step) -> None:
        self._tell(0, step.total, self._sum(1))

    def after(self, step: Step) -> None:
        self._tell(step.index, step.total, self._left(step.index))

    def _left(self, done: int) -> float:
        expected = self._sum(0) - self._sum(done + 1)
        spent = self._budget.clock() - self._started
        # One slow pass says little of the next.
        factor = min(4.0, max(0.25, spent / expected)) if expected else 1.0
        return self._sum(done + 1) * factor

    def _sum(self, first: int) -> float:
        """Return the time of a step and all after it; step 0 is the original."""
        return sum(self._step(index) for index in range(first, len(self._kinds) + 1))

    def _step(self, index: int) -> float:
        plan = self._budget.plan
        cost = plan.seconds_per_sample
        if cost is None:
            cost = 2 * self._parameters * _POSITIONS / _FLOPS
        judged = (plan.metric_samples + plan.fidelity_samples) * cost
        checks = _CHILD_SECONDS * self._checks
        if not index:
            return checks + judged + plan.fidelity_samples * cost
        own = _SECONDS_PER_PASS + 4 * self._parameters * _SECONDS_PER_BYTE
        lossy = self._kinds[index - 1] is Exactness.LOSSY
        last = index == len(self._kinds)
        ends = last or Exactness.LOSSY in (self._kinds[index - 1], self._kinds[index])
        timed = {"each": True, "end": ends, "last": last, "none": False}[plan.timed]
        return (
            own
            + checks
            + (judged if lossy or not plan.inherits else 0.0)
            + (_OF_BENCH * plan.bench_seconds if timed else 0.0)
        )
