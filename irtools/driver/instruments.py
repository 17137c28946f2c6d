"""Which instruments a run has, and the judge that they share."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import pairwise

from irtools.data import Dataset, SyntheticSettings
from irtools.driver.job import Job
from irtools.driver.rows import Rows
from irtools.errors import DataError, UnknownNameError, UnsupportedError
from irtools.instruments import (
    AccuracyGuard,
    Benchmark,
    Budget,
    FidelityAndMetric,
    Greedy,
    Judge,
    Numerics,
    Outlook,
    Reproducer,
    Sizes,
    Verification,
)
from irtools.measure.base import BenchSettings
from irtools.measure.cpu import cpu_quota
from irtools.measure.drawable import DrawnInputs
from irtools.measure.effort import Workload
from irtools.measure.figures import Occasion
from irtools.measure.machine import machine, versions
from irtools.metrics import Metric
from irtools.model import Model
from irtools.passmanager import Exactness, Instrument, Workspace
from irtools.plugins import suggest
from irtools.report.kinds import figure_kinds
from irtools.targets import Runner, RunnerOptions, lowered, target_text

__all__ = ["judged_on", "make_budget", "make_instruments", "make_judge", "make_watchers"]

_DRAWN, _DRAWN_FEW = 32, 8
"""Samples that are drawn to compare models on."""


def make_budget(job: Job, data: Dataset | None, metric: Metric | None) -> Budget:
    """Return the measuring plan of a run."""
    timed = "none" if job.bench is None else job.settings.timed
    return Budget(job.settings.planned_effort, _workload(job, data, metric), timed)


def _workload(job: Job, data: Dataset | None, metric: Metric | None) -> Workload:
    lossy = [p.promise is Exactness.LOSSY for p in job.pipeline]
    # A row of passes that keep the function ends before a lossy pass, or with the pipeline.
    rows = sum(not here and coming for here, coming in pairwise([*lossy, True]))
    return Workload(
        samples=0 if data is None else len(data),
        evaluated=1 + sum(lossy),
        timed=sum(lossy) + rows,
        scored=metric is not None or job.settings.max_drop is not None,
        drawn=data is not None and data.synthetic,
    )


def make_watchers(job: Job, budget: Budget) -> Iterator[Instrument]:
    """Yield those that show the run while it goes on."""
    if job.watch.on_row is not None:
        yield Rows(job.watch.on_row)
    if job.watch.on_outlook is not None:
        kinds = [p.promise for p in job.pipeline]
        outlook = Outlook(
            kinds, budget, job.model.num_parameters, job.settings.check, job.watch.on_outlook
        )
        outlook.start()
        yield outlook


def make_instruments(
    job: Job, judge: Judge | None, budget: Budget, drawn: DrawnInputs
) -> Iterator[Instrument]:
    """Yield the instruments, nearest to the pass first: what is broken must not be timed."""
    yield Verification()
    if job.settings.check:
        feeds = budget.plan.numerics_feeds
        yield Numerics(job.target, job.settings.threads, job.data, drawn, feeds)
    if judge is not None and job.settings.max_drop is not None:
        yield AccuracyGuard(judge, job.settings.max_drop, budget)
    if job.bench is not None:
        data = job.data
        yield Benchmark(
            job.target,
            budget.plan.bench(job.bench),
            data,
            job.settings.seed,
            drop_slower=job.settings.drop_slower,
            timed=budget.plan.timed,
            adapt=drawn.usable,
        )
    yield Sizes()
    yield from _asked_for(job, drawn)
    if job.settings.check:
        yield Greedy(
            job.target,
            job.settings.threads,
            job.data,
            new_tokens=job.settings.new_tokens,
            seed=job.settings.seed,
            budget=budget,
        )
    if judge is not None:
        lossy = [i for i, p in enumerate(job.pipeline, 1) if p.promise is Exactness.LOSSY]
        yield FidelityAndMetric(judge, budget, max(lossy, default=0))
    if job.settings.reproducer:
        yield Reproducer()


def _asked_for(job: Job, drawn: DrawnInputs) -> Iterator[Instrument]:
    """Yield the instruments of figures that are measured on request."""
    occasion = Occasion(
        job.target, job.bench or BenchSettings(), job.data, job.settings.seed, drawn.usable
    )
    found = {kind.key: kind.instrument(occasion) for kind in figure_kinds()}
    known = {key.replace("_", "-"): one for key, one in found.items() if one is not None}
    for name in job.settings.figures:
        shown = name.replace("_", "-")
        if shown not in known:
            raise UnknownNameError(
                f"there is no figure {shown!r} to be measured on request{suggest(shown, known)}"
            )
        yield known[shown]


def make_judge(
    job: Job, workspace: Workspace, data: Dataset, metric: Metric | None, budget: Budget
) -> Judge:
    """Return what scores models, shared by the guard and the figures of quality."""
    threads = job.settings.threads or cpu_quota()

    def make_runner(model: Model, options: RunnerOptions) -> Runner:
        # The reference runs as it is; the others in the form that is written. That of the original
        # is not needed anywhere else.
        if options.exact:
            form = model
        elif model is job.model:
            form = lowered(model, job.target, portable=job.settings.portable)
        else:
            form = workspace.deployed(model)
        return job.target.runner(form, dataclasses.replace(options, threads=threads))

    kept = None if data.synthetic else job.cache  # Drawn samples are few.
    return Judge(
        job.model,
        data,
        metric,
        make_runner,
        job.watch.progress,
        whole=job.settings.max_drop is not None,
        budget=budget,
        cache=kept,
        identity=None if kept is None else _identity(job, threads),
    )


def _identity(job: Job, threads: int) -> dict[str, object]:
    """What decides the outputs of the original, besides the data."""
    return {
        "model": job.model.fingerprint(),
        "target": target_text(job.target),
        "runtime": job.target.version(),
        "cpu": machine().cpu,
        "threads": threads,
        "portable": job.settings.portable,
        "versions": sorted(versions().items()),
    }


def judged_on(job: Job, drawn: DrawnInputs) -> Dataset | None:
    """Data to compare models on; None where none was given and none can be drawn that runs."""
    data = job.data
    if data is not None:
        return data
    # Without a lossy pass there is only the runtime's own rounding to see.
    lossy = any(p.promise is Exactness.LOSSY for p in job.pipeline)
    settings = SyntheticSettings(samples=_DRAWN if lossy else _DRAWN_FEW, seed=job.settings.seed)
    try:
        return drawn.synthesize(settings, job.model)
    except (DataError, UnsupportedError) as error:
        if job.settings.max_drop is not None:
            raise DataError(f"max-drop needs data to be measured on: {error}") from error
        return None
