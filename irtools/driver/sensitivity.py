"""Which of the decisions of a pass cost most: predicted for all, measured for some.

A plan predicts the loss of each decision from statistics of the tensors that it touches. What the
model's outputs lose is another matter, since errors add up or cancel on their way; so each of the
decisions that seem to cost most can be applied alone and the outputs compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from irtools.data import Dataset, SyntheticSettings
from irtools.driver.planning import Planned
from irtools.errors import IrtoolsError, UsageError
from irtools.executors import Executor, Farm, ServiceSpec, Task
from irtools.measure.divergence import compare_models
from irtools.metrics import Fidelity
from irtools.passmanager import Decision, pass_text

__all__ = [
    "Elsewhere",
    "Sensitivity",
    "SensitivityReport",
    "closeness_with",
    "rank_decisions",
    "samples_for",
]

_SAMPLES = 32
_HALF = 0.5
_MOST = 0.25
"""Share of the decisions that may be advised to be left out; more is another pipeline."""


@dataclass(frozen=True)
class Elsewhere:
    """Workers that measure decisions.

    Attributes:
        executor: Not started yet.
        payload: What a `SensitivityService` is made of.
        on_note: Told of workers that come and go.
    """

    executor: Executor
    payload: Mapping[str, Any]
    on_note: Callable[[str], None]


@dataclass(frozen=True)
class Sensitivity:
    """What one decision costs.

    Attributes:
        subject: What it is about: the name of a weight, node or module.
        action: What would be done.
        cost: Predicted loss, in the unit of the plan.
        share: That loss over the sum of all.
        gain: What it saves, in the unit of the plan.
        measured: Closeness of the output that suffers most, with this decision alone; None where
            it was not measured.
    """

    subject: str
    action: str
    cost: float
    share: float
    gain: float
    measured: Fidelity | None = None


@dataclass(frozen=True)
class SensitivityReport:
    """The decisions of a plan, the one that costs most first.

    Attributes:
        pass_text: The pass with its options.
        cost_unit: Unit of the predicted loss.
        gain_unit: Unit of what is saved.
        rows: By measured loss where it is known, then by the predicted one.
        exclude: Subjects that carry half of the predicted loss, to be left out; empty where it
            takes more than a quarter of all, or the pass has no such option.
        advice: The pass with the option that leaves them out; empty without any.
        samples: Samples that the measured figures are over; 0: nothing was measured.
        source: Where these come from.
        notes: What a reader of the figures should know.
    """

    pass_text: str
    cost_unit: str
    gain_unit: str
    rows: tuple[Sensitivity, ...]
    exclude: tuple[str, ...] = ()
    advice: str = ""
    samples: int = 0
    source: str = ""
    notes: tuple[str, ...] = ()

    @property
    def kept_gain(self) -> float:
        """Share of the gain that is left without the excluded subjects."""
        total = sum(row.gain for row in self.rows)
        lost = sum(row.gain for row in self.rows if row.subject in self.exclude)
        return 1 - lost / total if total else 1.0


def rank_decisions(
    found: Planned, measure: int = 0, elsewhere: Elsewhere | None = None
) -> SensitivityReport:
    """Rank the decisions of a plan.

    Args:
        found: The plan and what it was made for.
        measure: How many of the decisions are measured, those first that are predicted to cost
            most.
        elsewhere: Workers that measure them; None: here, one after the other.

    Raises:
        UsageError: There is nothing to measure on: no data, and none that may be drawn.
        ClusterError: The workers are gone.
        IrtoolsError: The model does not run.
    """
    plan = found.plan
    total = sum(decision.cost for decision in plan.decisions) or 1.0
    ordered = sorted(plan.decisions, key=lambda d: -d.cost)
    data = samples_for(found) if measure and ordered else None
    measured = {} if data is None else _measured(found, ordered[:measure], data, elsewhere)
    rows = [
        Sensitivity(d.subject, d.action, d.cost, d.cost / total, d.gain, measured.get(number))
        for number, d in enumerate(ordered)
    ]
    rows.sort(key=_measured_loss)
    exclude = _to_exclude(found, ordered, total)
    return SensitivityReport(
        plan.pass_text,
        plan.cost_unit,
        plan.gain_unit,
        tuple(rows),
        exclude,
        _leaving_out(found, exclude) if exclude else "",
        0 if data is None else len(data),
        "" if data is None else data.source,
        plan.notes,
    )


def _measured_loss(row: Sensitivity) -> tuple[bool, float]:
    """Sort by the measured loss; what was not measured comes after, in its order."""
    return (row.measured is None, 0.0 if row.measured is None else row.measured.sqnr_db)


def _measured(
    found: Planned, chosen: Sequence[Decision], data: Dataset, elsewhere: Elsewhere | None
) -> dict[int, Fidelity]:
    """Return what the outputs keep with each decision alone, by its place."""
    measured: dict[int, Fidelity] = {}
    progress = found.ctx.progress
    if elsewhere is None:
        for number, decision in enumerate(chosen):
            progress.step("sensitivity", number, len(chosen))
            measured[number] = closeness_with(found, decision, data)
        return measured
    spec = ServiceSpec("irtools.driver.sensitivity_service:SensitivityService", elsewhere.payload)
    with Farm(elsewhere.executor, spec, on_note=elsewhere.on_note) as farm:
        for number, decision in enumerate(chosen):
            farm.submit(Task(str(number), decision))
        for outcome in farm.results():
            measured[int(outcome.task.key)] = outcome.get()
            progress.step("sensitivity", len(measured), len(chosen))
    return measured


def closeness_with(found: Planned, decision: Decision, data: Dataset) -> Fidelity:
    """Return what the output that suffers most keeps with one decision alone."""
    changed = found.model.clone()
    found.ctx.drop_analyses()
    found.pass_.apply(changed.ir, replace(found.plan, decisions=(decision,)), found.ctx)
    compared = compare_models(
        found.model, changed, data, found.ctx.target, threads=found.ctx.threads
    )
    return min(compared.outputs.values(), key=lambda output: output.sqnr_db)


def samples_for(found: Planned) -> Dataset:
    """Return the samples that outputs are compared on.

    Raises:
        UsageError: There is no data, and none may be drawn.
    """
    ctx = found.ctx
    if ctx.calibration is not None:
        return ctx.calibration.spread(_SAMPLES)
    try:
        drawn = ctx.draw and ctx.draw(
            found.model.ir, SyntheticSettings(samples=_SAMPLES, seed=ctx.seed)
        )
    except IrtoolsError as error:
        raise UsageError(f"nothing to measure on: {error}") from error
    if drawn is None:
        raise UsageError("nothing to measure on: give data with --calibrate")
    return drawn


def _to_exclude(found: Planned, ordered: Sequence[Decision], total: float) -> tuple[str, ...]:
    if "exclude" not in vars(found.pass_):
        return ()
    names: list[str] = []
    carried = 0.0
    for decision in ordered:
        if carried >= _HALF * total:
            break
        carried += decision.cost
        names.append(decision.subject)
    return tuple(names) if len(names) <= _MOST * len(ordered) else ()


def _leaving_out(found: Planned, names: Sequence[str]) -> str:
    """Return the pass with the option that leaves some subjects out, as pipeline text."""
    before: tuple[str, ...] = vars(found.pass_)["exclude"]
    changed: Any = replace(found.pass_, exclude=(*before, *names))  # type: ignore[call-arg]
    return pass_text(changed)
