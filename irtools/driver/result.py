"""What a run gives back: models, plans and the report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from irtools.driver.history import with_history
from irtools.driver.make import (
    block_entry,
    data_entry,
    make_rows,
    model_entry,
    module_entries,
    pass_entries,
    plan_entries,
    target_entry,
    utc_now,
)
from irtools.driver.session import Session
from irtools.driver.shown import sample_entries
from irtools.measure.figures import Level, Verdict
from irtools.measure.machine import machine, versions
from irtools.model import Model
from irtools.passmanager import Exactness, Plan, Step, pass_text
from irtools.report.document import Report
from irtools.report.entries import GoalEntry, Row, TriedEntry
from irtools.report.frame import frame
from irtools.report.page import report_fragment
from irtools.report.saturation import remark_on_saturation
from irtools.report.verdicts import (
    judge_run,
    remark_on_data,
    remark_on_drawn,
    remark_on_equal,
    remark_on_form,
)
from irtools.targets import KernelReport, Target, target_text

__all__ = ["OptimizeResult", "Search", "make_result"]


@dataclass(frozen=True)
class OptimizeResult:
    """What came out.

    Attributes:
        model: The optimized model in standard operators, with the exporter's notes: what further
            passes need.
        deployed: The same in its target's form, as it was timed and as `irc` saves it: with the
            target's own operators unless `portable`, without the exporter's notes.
        report: Everything that was measured; prints as a table.
        plans: Plan of each planning pass as it was applied, by pass text.
        original: The model that went in, as it was read.
        target: What it was optimized for.
    """

    model: Model
    deployed: Model
    report: Report
    plans: Mapping[str, Plan]
    original: Model
    target: Target = field(repr=False)

    @property
    def rows(self) -> tuple[Row, ...]:
        """One row per pass, the original first."""
        return self.report.rows

    def to_frame(self) -> Any:
        """Return the figures as a data frame of pandas, else of polars: one row per pass.

        Raises:
            UnsupportedError: Neither is installed.
        """
        return frame(self.report)

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return report_fragment(self.report)


@dataclass(frozen=True)
class Search:
    """How a pipeline was found, for the report.

    Attributes:
        tried: What was tried, in order.
        command: The command that makes the result again without searching.
        next: What could be done beyond it, each with its command.
        trials: All trials of a tuner.
    """

    tried: tuple[TriedEntry, ...] = ()
    command: str = ""
    next: tuple[str, ...] = ()
    trials: tuple[TriedEntry, ...] = ()


def make_result(
    session: Session,
    steps: Sequence[Step],
    started: float,
    goals: tuple[GoalEntry, ...] = (),
    search: Search = Search(),
) -> OptimizeResult:
    """Put together what a run gives back.

    Args:
        session: What it ran with; its job has the whole pipeline.
        steps: Of the original and of every pass of the pipeline.
        started: On the clock of `time.monotonic`.
        goals: Whether they hold on the samples that are quoted.
        search: How the pipeline was found.
    """
    kernels = session.kernels(steps)
    job, final = session.job, steps[-1].model
    model, deployed = with_history(
        (final, session.workspace.deployed(final)),
        job.model,
        str(job.pipeline) if any(step.modified for step in steps) else "",
        target_text(job.target),
    )
    report = _report(session, steps, deployed, kernels, goals, search, started)
    plans = {s.text: s.result.plan for s in steps if s.result.plan is not None}
    return OptimizeResult(model, deployed, report, plans, job.model, job.target)


def _report(
    session: Session,
    steps: Sequence[Step],
    deployed: Model,
    kernels: KernelReport | None,
    goals: tuple[GoalEntry, ...],
    search: Search,
    started: float,
) -> Report:
    job, judge, budget, drawn = session.job, session.judge, session.budget, session.drawn
    calibration = session.calibration.used
    rows = make_rows(steps)
    calibrated, evaluated = (
        data_entry(calibration),
        data_entry(None if judge is None else judge.data),
    )
    return Report(
        created=utc_now(),
        model=model_entry(job.model),
        calibration=calibrated,
        evaluation=evaluated,
        target=target_entry(job.target),
        machine=machine(),
        versions=versions(),
        pipeline=str(job.pipeline),
        passes=pass_entries(job.pipeline),
        settings=job.settings.entry(job.evaluation, job.calibration),
        bench=None if job.bench is None else budget.plan.bench(job.bench),
        rows=rows,
        result=model_entry(deployed, "result"),
        kernels=kernels,
        verdicts=judge_run(
            rows,
            kernels,
            calibrated,
            evaluated,
            {pass_text(p): p.counters for p in job.pipeline},
            (
                *(Verdict(Level.NOTE, note) for note in job.model.notes),
                *remark_on_data(calibration, None if judge is None else judge.data),
                *remark_on_drawn(drawn.note),
                *_on_split(session),
                *remark_on_equal(
                    rows,
                    [p.promise is Exactness.LOSSY for p in job.pipeline],
                    judge is not None and judge.data.synthetic,
                ),
                *remark_on_form(deployed.ir, job.target),
                *remark_on_saturation(job.model.ir, deployed.ir, job.target),
            ),
            "" if job.data else drawn.reason,
        ),
        seconds=time.monotonic() - started,
        measuring=budget.plan,
        goals=goals,
        tried=search.tried,
        command=search.command,
        next=search.next,
        trials=search.trials,
        plans=plan_entries(steps),
        modules=module_entries(job.model, steps[-1].model),
        block=block_entry(job.model, steps[-1].model),
        samples=sample_entries(rows, None if judge is None else judge.data, job.settings),
    )


def _on_split(session: Session) -> tuple[Verdict, ...]:
    note = "" if session.samples is None else session.samples.note
    return (Verdict(Level.NOTE, note),) if note else ()
