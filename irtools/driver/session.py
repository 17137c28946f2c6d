"""One model, its data and what it is measured with, for as many pipelines as are wanted.

The original is read, run and scored once; a pipeline may go on from any state that another one
reached. Nothing outlives the session but models and figures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from irtools.driver.inputs import choose_metric
from irtools.driver.instruments import (
    kept_results,
    make_benchmark,
    make_budget,
    make_checks,
    make_greedy,
    make_instruments,
    make_judge,
    make_watchers,
    measured_tables,
    run_identity,
)
from irtools.driver.job import Job, files_next_to
from irtools.driver.observed import observe_step
from irtools.driver.samples import Samples, check_decidable, keep_fresh, samples_of
from irtools.errors import UsageError
from irtools.goals import Goals, Observed
from irtools.instruments import Budget, FidelityAndMetric, Judge
from irtools.measure.base import LatencyResult
from irtools.measure.drawable import DrawnInputs
from irtools.measure.sandbox import children_ahead
from irtools.metrics import Fidelity, Metric
from irtools.passmanager import (
    Calibration,
    Exactness,
    Instrument,
    PassContext,
    PassManager,
    Pipeline,
    Step,
    Workspace,
)
from irtools.targets import KernelReport, RunnerOptions, lowered, target_text

__all__ = ["Session", "open_session"]

_PIPELINES = 6
"""What a search tries, about."""


@dataclass
class Session:
    """What pipelines are run with.

    Attributes:
        job: What was asked for, with the pipeline that is reported.
        workspace: Where models are on disk.
        drawn: How inputs are drawn.
        calibration: The calibration data, given or drawn.
        ctx: What passes may ask for.
        samples: The data that models are judged on; None: there is none.
        guard: Judges on the samples that are chosen by; None: nothing is chosen by data.
        judge: Judges on the samples that are quoted; None: nothing is.
        umpire: Judges the best ones of a search on samples that it had not seen; None: there are
            none.
        budget: How much is measured.
    """

    job: Job
    workspace: Workspace
    drawn: DrawnInputs
    calibration: Calibration
    ctx: PassContext
    samples: Samples | None
    guard: Judge | None
    judge: Judge | None
    budget: Budget
    umpire: Judge | None = None

    def run(self, pipeline: Pipeline) -> tuple[Step, ...]:
        """Run a whole pipeline with everything that its report has."""
        job = dataclasses.replace(self.job, pipeline=pipeline)
        hooks = (
            *make_instruments(job, self.guard, self.judge, self.budget, self.drawn),
            *job.watch.instruments,
            *make_watchers(job, self.budget),
        )
        manager = PassManager(pipeline, hooks, job.plans, kept_results(job))
        return manager.run(job.model, self.ctx, self.workspace)

    def begin(self) -> tuple[Step, ...]:
        """Return the state before any pass: the original, checked and measured."""
        return self._checked(Pipeline(), ())

    def go_on(
        self, done: Sequence[Step], pipeline: Pipeline, *, timed: bool = True
    ) -> tuple[Step, ...]:
        """Run more passes after those of an earlier state; they are checked, guarded and timed.

        Figures of the samples that are quoted are not among them: see `quote`.

        Args:
            timed: False: the models are not timed; see `time`.
        """
        return self._checked(pipeline, done, timed=timed)

    def _checked(
        self, pipeline: Pipeline, done: Sequence[Step], *, timed: bool = True
    ) -> tuple[Step, ...]:
        bench = self.job.bench if timed else None
        job = dataclasses.replace(self.job, pipeline=pipeline, bench=bench)
        hooks = tuple(make_checks(job, self.guard, self.budget, self.drawn, "last"))
        hooks = (*hooks, *job.watch.instruments)
        manager = PassManager(pipeline, hooks, kept=kept_results(job))
        return manager.run(job.model, self.ctx, self.workspace, done)

    def observe(self, steps: Sequence[Step]) -> Observed:
        """Return the figures that goals are decided by, of the last model of a state."""
        return observe_step(steps, self.guard, self.job.settings.wanted)

    def closeness(self, steps: Sequence[Step]) -> Fidelity | None:
        """Return the fidelity of the last model of a state, on the samples to choose by."""
        return None if self.guard is None else self.guard.score(steps[-1].model).fidelity

    def compared(self, steps: Sequence[Step]) -> Observed:
        """Return the figures that the best ones of a search are compared by."""
        return observe_step(steps, self.umpire or self.guard, self.job.settings.wanted)

    def quoted(self, steps: Sequence[Step]) -> Observed:
        """Return the figures of the last model of a run on the samples that are quoted."""
        return observe_step(steps, self.judge, self.job.settings.wanted)

    def quote(self, steps: Sequence[Step]) -> Observed:
        """Measure a state as a report quotes it: on the samples that nothing was chosen by, and
        timed once more, since what is chosen for its time was lucky, too.

        Returns:
            The figures of the last model.
        """
        for one in self._quoting(steps):
            _watch(one, steps)
        if len(steps) > 1:
            self.time(steps)
        return self.quoted(steps)

    def time(self, steps: Sequence[Step], *, longer: int = 1) -> None:
        """Time the last model of a state once more.

        Args:
            longer: Times as long as the plan says.
        """
        if self.job.bench is not None:
            again = make_benchmark(self.job, self.budget, self.drawn, longer=longer)
            again.begin(steps[0])
            again.time(steps[-1])

    def compete(
        self, original: Step, rivals: Mapping[str, tuple[Step, str]]
    ) -> Mapping[str, tuple[LatencyResult, ...]]:
        """Time models of several sessions against the original and each other, alternating.

        Args:
            original: The step of this session's original.
            rivals: Name to the step that a model is after, and to the text of its target.
        """
        if self.job.bench is None:
            return {}
        again = make_benchmark(self.job, self.budget, self.drawn)
        again.begin(original)
        return again.compete(rivals)

    def _quoting(self, steps: Sequence[Step]) -> Iterator[Instrument]:
        if self.judge is not None:
            lossy = [s.index for s in steps if s.pass_.promise is Exactness.LOSSY]
            yield FidelityAndMetric(self.judge, self.budget, max(lossy, default=0))
        run = dataclasses.replace(self.job, pipeline=Pipeline(*(s.pass_ for s in steps[1:])))
        if run.settings.check and run.new_tokens:
            yield make_greedy(run, self.budget)

    def kernels(self, steps: Sequence[Step]) -> KernelReport | None:
        """Return the kernels that the runtime chose for the last model; None: it is not run."""
        job = self.job
        if not job.settings.check and job.bench is None:
            return None
        options = RunnerOptions(threads=job.settings.threads)
        return job.target.kernels(self.workspace.deployed(steps[-1].model), options)


def _watch(instrument: Instrument, steps: Sequence[Step]) -> None:
    """Let an instrument see steps that are done already."""
    first, *others = steps
    with first.figures.spent_on(instrument.name):
        instrument.begin(first)
    for step in others:
        with step.figures.spent_on(instrument.name):
            instrument.after(step)
    instrument.end(steps[-1])


@contextmanager
def open_session(job: Job, *, searching: bool = False, fresh: bool = False) -> Iterator[Session]:
    """Get everything ready for pipelines over one model.

    Args:
        searching: Pipelines will be chosen by what is measured of them.
        fresh: Samples are kept for a comparison of the best ones.

    Raises:
        DataError: The goals cannot be decided on the data.
        IrtoolsError: As `optimize`.
    """
    settings = job.settings
    with (
        children_ahead(target_text(job.target)),
        Workspace(partial(lowered, target=job.target, portable=settings.portable)) as workspace,
    ):
        drawn = DrawnInputs(
            job.model,
            job.target,
            partial(workspace.path, job.model),
            threads=settings.threads,
            sizes=job.sizes,
            data=job.data,
            isolated=settings.check,
            further=searching or job.bench is not None or not job.keeps_function,
        )
        calibration = Calibration(job.calibration, job.model, settings.seed, drawn)
        ctx = PassContext.for_run(
            job.target,
            calibration,
            evaluation=job.evaluation,
            bench=job.bench,
            threads=settings.threads,
            progress=job.watch.progress,
            source_files=files_next_to(job.model, job.calibration, job.evaluation),
            kept=None if job.cache is None else (job.cache, run_identity(job)),
            tables=measured_tables(job),
            searching=searching,
        )
        choosing = searching or bool(settings.wanted.needing("data"))
        lossy = searching or any(p.promise is Exactness.LOSSY for p in job.pipeline)
        samples, judges = None, job.judges or (searching and settings.check)
        if judges:
            samples = samples_of(job, drawn, lossy=lossy, choosing=choosing)
        quoted = None if samples is None else samples.quoted
        metrics = _metrics(job, samples) if judges else ()
        if samples is not None and fresh:
            samples = keep_fresh(job, samples, metrics)
        budget = make_budget(job, quoted, metrics, _PIPELINES if searching else 0)
        guard = judge = umpire = None
        if samples is not None:
            judge = make_judge(job, workspace, samples.quoted, metrics, budget)
            if samples.choosing is not None:
                check_decidable(job, samples, metrics)
                unseen = len(samples.quoted)
                guard = make_judge(job, workspace, samples.choosing, metrics, budget, unseen)
                _check_bounds(settings.wanted, guard, job)
            if samples.fresh is not None:
                umpire = make_judge(job, workspace, samples.fresh, metrics, budget)
        yield Session(
            job, workspace, drawn, calibration, ctx, samples, guard, judge, budget, umpire
        )


def _metrics(job: Job, samples: Samples | None) -> tuple[Metric, ...]:
    data = None if samples is None else samples.quoted
    wanted = job.settings.metrics or (None,)
    found = (choose_metric(one, job.evaluation, data, job.model) for one in wanted)
    return tuple(metric for metric in found if metric is not None)


def _check_bounds(goals: Goals, guard: Judge, job: Job) -> None:
    """Refuse goals that the original itself does not keep, and those that nothing measures.

    Raises:
        UsageError: Says which, and the original's figure.
    """
    if not goals.needing("data"):
        return
    seen = guard.observe(job.model)
    for goal in goals.of("min-metric"):
        if seen.find("metric", goal.metric)[0] is None:
            lacks = "there is no evaluation data" if job.data is None else "it has no labels"
            raise UsageError(f"{goal} needs evaluation data with labels (--evaluate), and {lacks}")
        if goal.misses(seen):
            raise UsageError(
                f"{goal} cannot be kept: the original's {goal.metric or guard.what} is "
                f"{goal.shown(seen)} on the samples that are chosen by; ask for less"
            )
