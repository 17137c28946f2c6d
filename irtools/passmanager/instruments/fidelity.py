"""What every pass costs in accuracy."""

from __future__ import annotations

from typing import ClassVar

from irtools.passmanager.instruments.judge import Judge
from irtools.passmanager.step import Instrument, Step

__all__ = ["FidelityAndMetric"]


class FidelityAndMetric(Instrument):
    """Measures closeness to the original, and the task metric where there are labels.

    Args:
        judge: Scores models; shared with the accuracy guard, so that nothing is run twice.
    """

    name: ClassVar[str] = "fidelity"

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def begin(self, step: Step) -> None:
        step.figures.notes.extend(self._judge.notes)
        self.after(step)

    def after(self, step: Step) -> None:
        score = self._judge.score(step.model)
        step.figures.fidelity = score.fidelity
        step.figures.metric = score.metric
