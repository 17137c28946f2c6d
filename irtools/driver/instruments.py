"""Which instruments a run has, and the judge that they share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from irtools.data import Dataset
from irtools.driver.job import Job
from irtools.driver.rows import Rows
from irtools.errors import UnknownNameError
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
from irtools.measure.effort import TimedModels, Workload
from irtools.measure.figures import Occasion
from irtools.measure.machine import code_digest, machine, versions
from irtools.metrics import Metric
from irtools.model import Model
from irtools.passmanager import Exactness, Instrument, KeptResults, Tables, Workspace
from irtools.plugins import suggest
from irtools.report.kinds import figure_kinds
from irtools.targets import Runner, RunnerOptions, lowered, target_text

__all__ = [
    "kept_results",
    "make_benchmark",
    "make_budget",
    "make_checks",
    "make_greedy",
    "make_instruments",
    "make_judge",
    "make_watchers",
    "measured_tables",
    "run_identity",
]


def make_budget(
    job: Job, data: Dataset | None, metrics: Sequence[Metric], pipelines: int = 0
) -> Budget:
    """Return the measuring plan of a run.

    Args:
        pipelines: How many more than the job's are to be expected.
    """
    timed = "none" if job.bench is None else job.settings.timed
    work = _workload(job, data, metrics)
    evaluated, compared = work.evaluated + pipelines, work.timed + pipelines
    work = dataclasses.replace(work, evaluated=evaluated, timed=compared)
    return Budget(job.settings.planned_effort, work, timed)


def _workload(job: Job, data: Dataset | None, metrics: Sequence[Metric]) -> Workload:
    lossy = [p.promise is Exactness.LOSSY for p in job.pipeline]
    # A row of passes that keep the function ends before a lossy pass, or with the pipeline.
    rows = sum(not here and coming for here, coming in pairwise([*lossy, True]))
    return Workload(
        samples=0 if data is None else len(data),
        evaluated=1 + sum(lossy),
        timed=sum(lossy) + rows,
        scored=bool(metrics or job.settings.wanted.needing("data")),
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


def make_checks(
    job: Job,
    guard: Judge | None,
    budget: Budget,
    drawn: DrawnInputs,
    timed: TimedModels | None = None,
    *,
    rates: bool = False,
) -> Iterator[Instrument]:
    """Yield what checks and times a model, nearest to the pass first: what is broken must not be
    timed.

    Args:
        guard: What decides whether goals on metrics hold; None: nothing does.
        timed: Which models are timed; None: as the plan says.
        rates: The feeds of the check also show how close models are to the original.
    """
    yield Verification()
    if job.settings.check:
        feeds = budget.plan.numerics_feeds
        yield Numerics(job.target, job.settings.threads, job.data, drawn, feeds, rates=rates)
    if guard is not None and (goals := job.settings.wanted.needing("data")):
        yield AccuracyGuard(guard, goals, budget)
    if job.bench is not None:
        yield make_benchmark(job, budget, drawn, timed)
    yield Sizes()


def make_instruments(
    job: Job, guard: Judge | None, judge: Judge | None, budget: Budget, drawn: DrawnInputs
) -> Iterator[Instrument]:
    """Yield the instruments of a whole run, in the order of `make_checks`.

    Args:
        guard: As there.
        judge: What the report's figures come from.
    """
    yield from make_checks(job, guard, budget, drawn, rates=judge is None)
    yield from _asked_for(job, drawn)
    if job.settings.check and job.new_tokens:
        yield make_greedy(job, budget)
    if judge is not None:
        lossy = [i for i, p in enumerate(job.pipeline, 1) if p.promise is Exactness.LOSSY]
        yield FidelityAndMetric(judge, budget, max(lossy, default=0))
    if job.settings.reproducer:
        yield Reproducer()


def make_benchmark(
    job: Job,
    budget: Budget,
    drawn: DrawnInputs,
    timed: TimedModels | None = None,
    *,
    longer: int = 1,
) -> Benchmark:
    """Return what times models against the original.

    Args:
        timed: Which models are timed; None: as the plan says.
        longer: Times as long as the plan says.
    """
    assert job.bench is not None
    planned = budget.plan.bench(job.bench)
    seconds, rounds = longer * planned.max_seconds, longer * planned.rounds
    return Benchmark(
        job.target,
        dataclasses.replace(planned, max_seconds=seconds, rounds=rounds),
        job.data,
        job.settings.seed,
        drop_slower=job.settings.drop_slower,
        timed=timed or budget.plan.timed,
        adapt=drawn.usable,
    )


def make_greedy(job: Job, budget: Budget) -> Greedy:
    """Return what compares the texts that a decoder writes."""
    return Greedy(
        job.target,
        job.settings.threads,
        job.data,
        new_tokens=job.new_tokens,
        seed=job.settings.seed,
        budget=budget,
    )


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
    job: Job,
    workspace: Workspace,
    data: Dataset,
    metrics: Sequence[Metric],
    budget: Budget,
    unseen: float = math.inf,
) -> Judge:
    """Return what scores models on some data.

    Args:
        unseen: Samples that figures will be quoted on where they are not these.
    """
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
        next(iter(metrics), None),
        make_runner,
        job.watch.progress,
        whole=bool(job.settings.wanted.needing("data")),
        budget=budget,
        cache=kept,
        identity=None if kept is None else {"model": job.model.fingerprint(), **run_identity(job)},
        others=metrics[1:],
        unseen=unseen,
    )


def run_identity(job: Job) -> dict[str, object]:
    """Return what decides outputs and statistics, besides model and data."""
    return {
        "target": target_text(job.target),
        "runtime": job.target.version(),
        "cpu": machine().cpu,
        "threads": job.settings.threads or cpu_quota(),
        "portable": job.settings.portable,
        "versions": sorted(versions().items()),
        "code": code_digest(),
    }


def kept_results(job: Job) -> KeptResults | None:
    """Return where results of passes are kept between runs; None: nowhere."""
    if job.cache is None:
        return None
    return KeptResults(job.cache.store, _decides_passes(job))


def measured_tables(job: Job) -> Tables:
    """Return where passes find what an earlier one measured of the same model."""
    return Tables() if job.cache is None else Tables(job.cache, _decides_passes(job))


def _decides_passes(job: Job) -> dict[str, object]:
    """Return what decides what passes make and measure, besides model, data and seed."""
    more = {"bench": job.bench, "sizes": sorted(job.sizes.items()), "check": job.settings.check}
    return {**run_identity(job), **more}
