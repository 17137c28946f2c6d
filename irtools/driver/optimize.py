"""The main job: run a pipeline over a model, measured and checked pass by pass."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from irtools.data import Dataset
from irtools.driver.inputs import DataLike, choose_metric
from irtools.driver.instruments import (
    judged_on,
    make_budget,
    make_instruments,
    make_judge,
    make_watchers,
)
from irtools.driver.job import (
    Job,
    ModelLike,
    PipelineLike,
    Watch,
    files_next_to,
)
from irtools.driver.make import (
    data_entry,
    make_rows,
    model_entry,
    pass_entries,
    target_entry,
    utc_now,
)
from irtools.driver.settings import Settings
from irtools.instruments import Budget, Judge
from irtools.measure.drawable import DrawnInputs
from irtools.measure.figures import Level, Verdict
from irtools.measure.machine import machine, versions
from irtools.model import Model
from irtools.passmanager import (
    Calibration,
    Exactness,
    Instrument,
    PassContext,
    PassManager,
    Plan,
    Step,
    Workspace,
    pass_text,
)
from irtools.plugins import NullProgress, Progress
from irtools.report.document import Report
from irtools.report.entries import Row
from irtools.report.frame import frame
from irtools.report.html import html
from irtools.report.saturation import remark_on_saturation
from irtools.report.verdicts import (
    judge_run,
    remark_on_data,
    remark_on_drawn,
    remark_on_equal,
    remark_on_form,
)
from irtools.targets import KernelReport, RunnerOptions, Target, lowered

__all__ = ["OptimizeResult", "optimize"]


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
        return html(self.report)


def optimize(
    model: ModelLike,
    pipeline: PipelineLike,
    settings: Settings = Settings(),
    *,
    calibration: DataLike | None = None,
    evaluation: DataLike | None = None,
    plans: Sequence[Plan] = (),
    instruments: Sequence[Instrument] = (),
    progress: Progress | None = None,
    cache: Path | None = None,
    on_row: Callable[[Row], None] | None = None,
    on_outlook: Callable[[int, int, float], None] | None = None,
    **options: Any,
) -> OptimizeResult:
    """Run a pipeline over a copy of a model; each pass is verified, checked and measured.

    Args:
        model: ONNX file, checkpoint folder, `module:function`, or a model in memory. It never
            changes.
        pipeline: Pipeline text, a pass, or a `Pipeline`.
        settings: How it is run, checked and measured.
        calibration: Data for ranges and refits. Without it passes that need data draw it from the
            model's signature, and the report says so.
        evaluation: Data for fidelity, and with labels for the task metric. Without it fidelity is
            measured on the calibration data, or on data drawn from the model's signature.
        plans: Plans to replay instead of planning again.
        instruments: Further hooks around every pass.
        progress: Where to show how far long steps are.
        cache: Folder in which the original's outputs are kept between runs; None: not kept.
        on_row: Called with each row of the report as soon as its pass is done.
        on_outlook: Called with the passes done, their number, and the seconds that the rest will
            take: from the start, and after each pass.
        options: Any of the `Settings`, in place of those of `settings`:
            `optimize(model, "int8", target="openvino-cpu", max_drop=0.01)`.

    Raises:
        UsageError: Wrong pipeline, target or combination of arguments.
        ModelError: The model cannot be read or is not sound.
        DataError: Data that does not fit the model.
        UnsupportedError: Not possible on this target.
        VerificationError: A pass broke the model.
        PassError: A pass failed unexpectedly; its notes name the reproducer folder.
    """
    started = time.monotonic()
    watch = Watch(instruments, progress or NullProgress(), on_row, on_outlook)
    chosen = settings.changed(options)
    job = Job.read(model, pipeline, chosen, calibration, evaluation, plans, cache, watch)
    return _run(job, started)


def _run(job: Job, started: float) -> OptimizeResult:
    with Workspace(
        partial(lowered, target=job.target, portable=job.settings.portable)
    ) as workspace:
        drawn = DrawnInputs(
            job.model,
            job.target,
            partial(workspace.path, job.model),
            threads=job.settings.threads,
            sizes=job.sizes,
            data=job.data,
            isolated=job.settings.check,
        )
        calibration = Calibration(job.calibration, job.model, job.settings.seed, drawn)
        ctx = PassContext.for_run(
            job.target,
            calibration,
            evaluation=job.evaluation,
            bench=job.bench,
            threads=job.settings.threads,
            progress=job.watch.progress,
            source_files=files_next_to(job.model, job.calibration, job.evaluation),
        )
        data = judged_on(job, drawn) if job.judges else None
        metric = (
            choose_metric(job.settings.metric, job.evaluation, data, job.model)
            if job.judges
            else None
        )
        budget = make_budget(job, data, metric)
        judge = None if data is None else make_judge(job, workspace, data, metric, budget)
        hooks = (
            *make_instruments(job, judge, budget, drawn),
            *job.watch.instruments,
            *make_watchers(job, budget),
        )
        manager = PassManager(job.pipeline, hooks, job.plans)
        steps = manager.run(job.model, ctx, workspace)
        deployed = workspace.deployed(steps[-1].model)
        kernels = None
        if job.settings.check or job.bench is not None:
            options = RunnerOptions(threads=job.settings.threads)
            kernels = job.target.kernels(deployed, options)
    report = _report(job, steps, deployed, kernels, calibration.used, judge, budget, drawn)
    plans = {s.text: s.result.plan for s in steps if s.result.plan is not None}
    finished = dataclasses.replace(report, seconds=time.monotonic() - started)
    return OptimizeResult(steps[-1].model, deployed, finished, plans, job.model, job.target)


def _report(
    job: Job,
    steps: Sequence[Step],
    deployed: Model,
    kernels: KernelReport | None,
    calibration: Dataset | None,
    judge: Judge | None,
    budget: Budget,
    drawn: DrawnInputs,
) -> Report:
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
        seconds=0.0,
        measuring=budget.plan,
    )
