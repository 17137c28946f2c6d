"""Which layers a pass costs most at, as a figure of the report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from irtools.data import Dataset
from irtools.errors import IrtoolsError
from irtools.measure.divergence import compare_models
from irtools.measure.figures import Figure, Level, Measured, Occasion, Verdict
from irtools.passmanager import Decision, Instrument, Plan, PlanningPass, Step, prepare
from irtools.words import one_line

__all__ = ["LayerCost", "LayerCosts", "Sensitivity"]

_MEASURED = 8
_SAMPLES = 16
_TOLD = 3


@dataclass(frozen=True)
class LayerCost:
    """What a decision of a plan costs.

    Attributes:
        subject: What it is about: the name of a weight, node or module.
        action: What was done.
        cost: Predicted loss, in the unit of the plan.
        share: That loss over the sum of all.
        gain: What it saves, in the unit of the plan.
        measured_db: What the output that suffers most keeps with this decision alone, decibels;
            None where it was not measured, or nothing was lost.
    """

    subject: str
    action: str
    cost: float
    share: float
    gain: float
    measured_db: float | None = None


@dataclass(frozen=True)
class Sensitivity(Figure):
    """Predicted loss of each decision that a pass carried out, the costliest first.

    The first few are measured as well, each alone, on calibration data where there is some.

    Attributes:
        cost_unit: Unit of the predicted loss.
        gain_unit: Unit of what is saved.
        samples: Samples that the measured figures are over; 0: nothing was measured.
        layers: The decisions.
    """

    key: ClassVar[str] = "sensitivity"
    rank: ClassVar[int] = 90

    cost_unit: str
    gain_unit: str
    samples: int
    layers: tuple[LayerCost, ...]

    @classmethod
    def instrument(cls, occasion: Occasion) -> LayerCosts:
        return LayerCosts(occasion.data)

    @classmethod
    def verdicts(cls, rows: Sequence[Measured]) -> Iterator[Verdict]:
        for row in rows:
            found = cls.of(row)
            if found is None or not sum(layer.cost for layer in found.layers):
                continue
            name = row.text.partition(":")[0]
            worst = ", ".join(
                f"{layer.subject} {100 * layer.share:.0f} %{_kept(layer)}"
                for layer in found.layers[:_TOLD]
            )
            yield Verdict(Level.NOTE, f"{name}: of the predicted loss {worst}")


def _kept(layer: LayerCost) -> str:
    return "" if layer.measured_db is None else f" ({layer.measured_db:.1f} dB alone)"


class LayerCosts(Instrument):
    """Lists the decisions of plans, and carries the costliest out alone.

    Args:
        data: Samples where no calibration data is given; None: then nothing is measured.
    """

    name: ClassVar[str] = "sensitivity"

    def __init__(self, data: Dataset | None) -> None:
        self._data = data

    def after(self, step: Step) -> None:
        plan = step.result.plan
        if plan is None or not plan.decisions or not isinstance(step.pass_, PlanningPass):
            return
        ordered = sorted(plan.decisions, key=lambda d: -d.cost)
        total = sum(d.cost for d in ordered) or 1.0
        calibration = step.ctx.calibration or self._data
        data = None if calibration is None else calibration.spread(_SAMPLES)
        layers = [LayerCost(d.subject, d.action, d.cost, d.cost / total, d.gain) for d in ordered]
        measured = 0
        if data is not None:
            try:
                found = [self._alone(step, plan, d, data) for d in ordered[:_MEASURED]]
            except IrtoolsError as error:
                step.figures.notes.append(f"no layer was measured alone: {one_line(error)}")
            else:
                measured = len(data)
                layers[: len(found)] = [
                    LayerCost(d.subject, d.action, d.cost, d.cost / total, d.gain, db)
                    for d, db in zip(ordered, found, strict=False)
                ]
        units = plan.cost_unit, plan.gain_unit
        step.figures.put(Sensitivity(*units, measured, tuple(layers)))

    def _alone(self, step: Step, plan: Plan, decision: Decision, data: Dataset) -> float | None:
        """Return what the outputs keep with one decision carried out; None where all is kept."""
        assert isinstance(step.pass_, PlanningPass)
        changed, original = step.before.clone(), step.before.clone()
        step.ctx.drop_analyses()
        for model in (original, changed):
            # The plan names what it found in the model as it was prepared for the pass.
            prepare(step.pass_, model.ir, step.ctx)
        step.pass_.apply(changed.ir, replace(plan, decisions=(decision,)), step.ctx)
        step.ctx.drop_analyses()
        compared = compare_models(
            original, changed, data, step.ctx.target, threads=step.ctx.threads
        )
        kept = min(output.sqnr_db for output in compared.outputs.values())
        return float(kept) if math.isfinite(kept) else None
