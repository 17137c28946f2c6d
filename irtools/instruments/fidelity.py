"""What every pass costs in accuracy."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from irtools.instruments.budget import Budget
from irtools.instruments.judge import Judge
from irtools.instruments.scores import FidelityFigure, FurtherMetrics, MetricFigure
from irtools.passmanager import Exactness, Instrument, Step

__all__ = ["FidelityAndMetric", "keeps_function"]


def keeps_function(step: Step) -> bool:
    """Whether a pass promised the same function, and the numbers on a few samples confirm it."""
    return step.pass_.promise is not Exactness.LOSSY and "numerics" in step.figures.checks


class FidelityAndMetric(Instrument):
    """Measures closeness to the original, and the task metric where there are labels.

    A model that computes the same function as the one before it has its figures, which are then
    marked as inherited, unless the plan says to measure every model.

    Args:
        judge: Scores models; shared with the accuracy guard, so that nothing is run twice.
        budget: Whether figures are inherited; by default not.
        last_lossy: Position of the last lossy pass: models before it may be scored on fewer
            samples, since the report compares the result with the original.
    """

    name: ClassVar[str] = "fidelity"

    def __init__(self, judge: Judge, budget: Budget | None = None, last_lossy: int = 0) -> None:
        self._judge = judge
        self._budget = budget or Budget()
        self._last_lossy = last_lossy
        self._before: Step | None = None

    def begin(self, step: Step) -> None:
        self._measure(step)
        step.figures.notes.extend(self._judge.notes)

    def after(self, step: Step) -> None:
        same = self._budget.plan.inherits and keeps_function(step)
        if self._before is None or (step.modified and not same):
            self._measure(step)
            return
        for kind in (FidelityFigure, MetricFigure):
            figure = self._before.figures.get(kind)
            if isinstance(figure, FidelityFigure | MetricFigure):
                inherited = step.modified or figure.inherited
                step.figures.put(replace(figure, inherited=inherited))
        further = self._before.figures.get(FurtherMetrics)
        if further is not None:
            changed = step.modified
            metrics = [replace(m, inherited=changed or m.inherited) for m in further.metrics]
            step.figures.put(FurtherMetrics(tuple(metrics)))
        self._before = step

    def resumed(self, step: Step) -> None:
        super().resumed(step)
        self._before = step

    def _measure(self, step: Step) -> None:
        inner = 0 < step.index < self._last_lossy
        score = self._judge.score(step.model, inner=inner)
        step.figures.put(FidelityFigure.made_of(score.fidelity), score.metric)
        if step.index and not inner:
            step.figures.put(self._judge.decisions(step.model))
        if score.others:
            step.figures.put(FurtherMetrics(score.others))
        step.figures.notes.extend(score.notes)
        self._before = step
