"""The measuring plan of one run, and what it was planned from."""

from __future__ import annotations

import time
from collections.abc import Callable

from irtools.measure.effort import Effort, MeasuringPlan, TimedModels, Workload, plan_measuring

__all__ = ["Budget"]


class Budget:
    """Holds the plan; it is made again when the cost of a run becomes known.

    Args:
        effort: How much time measuring may take.
        work: What there is to measure.
        timed: Which models are timed, where the caller says so.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        effort: Effort = Effort("thorough"),
        work: Workload = Workload(),
        timed: TimedModels | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.effort = effort
        self.clock = clock
        self._work = work
        self._timed = timed
        self._plan: MeasuringPlan | None = None

    @property
    def plan(self) -> MeasuringPlan:
        """What is measured, as far as it is known what it costs."""
        return self._plan or plan_measuring(self.effort, self._work, timed=self._timed)

    @property
    def cost(self) -> float | None:
        """Seconds of one sample in one run; None: nothing ran yet."""
        return None if self._plan is None else self._plan.seconds_per_sample

    def observe(self, seconds_per_sample: float) -> None:
        """Plan for what a sample costs."""
        self._plan = plan_measuring(self.effort, self._work, seconds_per_sample, self._timed)
