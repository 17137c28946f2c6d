"""What was measured of a model after a step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from irtools.measure.memory import forget_peak, peak_memory
from irtools.words import counted

if TYPE_CHECKING:
    from irtools.measure.base import LatencyResult
    from irtools.measure.generate import GreedyText
    from irtools.metrics import Fidelity

__all__ = ["DrawnBack", "Figures", "MetricFigure"]


@dataclass(frozen=True)
class MetricFigure:
    """A task metric with its confidence interval.

    Attributes:
        name: Name of the metric (`accuracy`).
        value: The figure over the whole evaluation set.
        low: Lower end of the 95 % bootstrap interval over samples.
        high: Upper end.
        larger_is_better: Whether a larger figure is a better one.
        samples: Number of samples that it was measured on.
    """

    name: str
    value: float
    low: float
    high: float
    larger_is_better: bool
    samples: int


@dataclass(frozen=True)
class DrawnBack:
    """What the accuracy guard kept of a pass.

    Attributes:
        kept: Decisions that were applied; 0 where the whole pass was dropped.
        planned: Decisions that the pass made; 0 where it makes no plan.
        drop: Loss of the kept model, in the budget's unit.
        full_drop: Loss with every decision applied.
        budget: Largest loss allowed.
        judge: What was measured (`accuracy`, `top-1 agreement`).
        trials: Models evaluated.
    """

    kept: int
    planned: int
    drop: float
    full_drop: float
    budget: float
    judge: str
    trials: int

    def __str__(self) -> str:
        if not self.planned:
            return "dropped"
        return f"drawn back to {self.kept} of {counted(self.planned, 'decision')}"


@dataclass
class Figures:
    """What instruments found out about the model after a step. None: not measured.

    Attributes:
        seconds: Wall time by activity: `pass`, then one per instrument.
        peak_bytes: Peak resident memory of this process by activity, mapped weights included;
            empty where the system does not tell. Child processes count by themselves.
        file_bytes: Size on disk, external data included.
        weight_bytes: Sum of the initializers and constants.
        latency: One result per shape, relative to the original.
        fidelity: Closeness to the original, of the output that suffers most.
        metric: Task metric on the evaluation data.
        inherited: Fidelity and metric are those of the model before it, whose function it keeps.
        greedy: How much of the original's greedy text a decoder writes, too.
        drawn_back: What the accuracy guard did, where it had to act.
        checks: Names of the checks that held (`verifier`, `numerics`).
        notes: Sentences that a reader must see.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    file_bytes: int | None = None
    weight_bytes: int | None = None
    latency: tuple[LatencyResult, ...] = ()
    fidelity: Fidelity | None = None
    metric: MetricFigure | None = None
    inherited: bool = False
    greedy: GreedyText | None = None
    drawn_back: DrawnBack | None = None
    checks: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def spent_on(self, activity: str) -> Iterator[None]:
        """Count time and peak memory of what happens inside to an activity."""
        tells = forget_peak()
        started = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - started
            self.seconds[activity] = self.seconds.get(activity, 0.0) + spent
            if tells:
                peak = max(self.peak_bytes.get(activity, 0), peak_memory())
                self.peak_bytes[activity] = peak
