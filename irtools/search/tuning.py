"""Tuning as a whole: from a source to the best model and the front."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from irtools.driver.inputs import DataLike
from irtools.driver.job import Job, ModelLike, Watch, as_model
from irtools.driver.outcome import check_kept, outcomes
from irtools.driver.result import OptimizeResult, Search, make_result
from irtools.driver.session import Session, open_session
from irtools.driver.settings import Settings
from irtools.errors import UsageError
from irtools.executors import Executor, packed
from irtools.goals import Interval
from irtools.passmanager import Pipeline
from irtools.plugins import NullProgress, Progress
from irtools.report.entries import TriedEntry
from irtools.search.advice import Given, command
from irtools.search.objectives import check_objectives, needs_times
from irtools.search.state import only_changes
from irtools.search.study import check_installed
from irtools.search.trials import untimed
from irtools.search.tune import Elsewhere, Point, Tuned, tune
from irtools.targets import Target, target_text

__all__ = ["tune_model"]


def tune_model(
    model: ModelLike,
    settings: Settings = Settings(),
    *,
    targets: Sequence[str | Target] = (),
    objectives: Sequence[str] = ("latency",),
    trials: int = 60,
    storage: Path | None = None,
    calibration: DataLike | None = None,
    evaluation: DataLike | None = None,
    holdout: DataLike | None = None,
    progress: Progress | None = None,
    cache: Path | None = None,
    executor: Executor | None = None,
    on_trial: Callable[[int, str, str], None] = lambda number, pipeline, outcome: None,
    on_note: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> OptimizeResult:
    """Try many pipelines; return the best in the first objective, with the front in its report.

    Args:
        model: As `optimize` takes it, like all that is not named here.
        targets: Search over all of these; none: the target of the settings alone. Times count in
            those of the original on the first one; goals on speed are about the original on the
            target that a result is for.
        objectives: What to make small: `latency`, `size`, `memory`, `loss`; the first one decides
            which point of the Pareto front is the result.
        trials: Pipelines to try, those in the storage among them.
        storage: A SQLite file in which trials are kept, so that a search can go on; None: none.
            The best ones are compared once more whenever the command ends.
        executor: Workers that trials run on, as `open_executor` returns them; None: here. The
            target's instruction set may be theirs and not this machine's: then figures of time
            are quoted there, too.
        on_trial: Called with the number of a trial, its pipeline and what came of it.
        on_note: Told of workers that come and go, a line each.

    Raises:
        MissingExtraError: The extra `tune` is not installed.
        UsageError: There is no such objective, it cannot be measured, no trial keeps the goals, or
            the storage is of another search.
        ClusterError: The workers are gone; what was measured is in the storage.
        IrtoolsError: As `optimize`.
    """
    started = time.monotonic()
    chosen = settings.changed(options)
    variants = _variants(chosen, targets)
    remote = executor is not None
    for variant in variants.values():
        check_objectives(objectives, variant, labelled=evaluation is not None, elsewhere=remote)
    check_installed()
    given = Given.of(model, calibration, evaluation, holdout)
    data: dict[str, Any] = {
        "calibration": calibration,
        "evaluation": evaluation,
        "holdout": holdout,
    }
    elsewhere = None
    if executor is not None:
        elsewhere = _elsewhere(executor, model, data, variants, objectives, cache, on_note)
        if elsewhere.quotes:
            variants = {text: untimed(variant) for text, variant in variants.items()}
    watch = Watch(progress=progress or NullProgress())
    source = as_model(model, chosen.loading, watch.progress)
    with ExitStack() as stack:
        sessions: dict[str, Session] = {}
        for where, variant in variants.items():
            job = Job.read(source, Pipeline(), variant, **data, cache=cache, watch=watch)
            fresh = objectives[0] == "loss"
            opened = open_session(job, searching=True, fresh=fresh)
            sessions[where] = stack.enter_context(opened)
        tuned = tune(
            sessions, objectives, trials, storage=storage, elsewhere=elsewhere, on_trial=on_trial
        )
        session = sessions[tuned.front[0].target]
        steps = only_changes(tuned.state.steps)
        pipeline = Pipeline(*(step.pass_ for step in steps[1:]))
        session.job = dataclasses.replace(session.job, pipeline=pipeline)
        found = outcomes(chosen.wanted, tuned.quoted or session.quote(steps))
        check_kept(found)
        text = command(given, session.job, str(pipeline)) if len(pipeline) else ""
        search = Search(tuple(_entries(tuned)), text, trials=tuple(_trials(tuned)))
        return make_result(session, steps, started, found, search)


def _variants(settings: Settings, targets: Sequence[str | Target]) -> dict[str, Settings]:
    """Return the settings for each target, by its text.

    Raises:
        UsageError: One is named twice.
    """
    found: dict[str, Settings] = {}
    for target in targets or (settings.target,):
        variant = dataclasses.replace(settings, target=target)
        text = target_text(variant.find_target())
        if text in found:
            raise UsageError(f"the target {text} is given twice: give different ones")
        found[text] = variant
    return found


def _elsewhere(
    executor: Executor,
    model: ModelLike,
    data: Mapping[str, DataLike | None],
    variants: Mapping[str, Settings],
    objectives: Sequence[str],
    cache: Path | None,
    on_note: Callable[[str], None],
) -> Elsewhere:
    """Return workers with what they need to run trials.

    Raises:
        UsageError: Times are wanted of targets with different instruction sets.
    """
    targets = {text: one.find_target() for text, one in variants.items()}
    first, *others = targets.values()
    timed = needs_times(objectives, next(iter(variants.values())))
    if timed and any(other.isa is not first.isa for other in others):
        raise UsageError(
            f"times of {' and '.join(targets)} are of different machines and do not compare: tune "
            "for one after the other"
        )
    given = {"model": model if isinstance(model, str) else _proto(model, variants), **data}
    sent = {name: packed(one, shares_files=executor.shares_files) for name, one in given.items()}
    folder = None if cache is None else os.fspath(cache) if executor.shares_files else ""
    settings = {t: dataclasses.replace(one, target=targets[t]) for t, one in variants.items()}
    payload = {**sent, "settings": settings, "objectives": tuple(objectives), "cache": folder}
    quotes = not all(target.runs_here for target in targets.values())
    return Elsewhere(executor, payload, first.isa.value, quotes, on_note)


def _proto(model: ModelLike, variants: Mapping[str, Settings]) -> Any:
    """Return a model in memory in a form that travels."""
    if isinstance(model, os.PathLike):
        return os.fspath(model)
    return as_model(model, next(iter(variants.values())).loading).to_proto()


def _entries(tuned: Tuned) -> Sequence[TriedEntry]:
    """Return the front as the report has it."""
    known = {trial.number: trial.figures for trial in tuned.trials}
    return [
        TriedEntry(
            f"trial {point.trial}",
            point.pipeline,
            "left" if place else "taken",
            point.why,
            # Of a trial that an earlier version stored nothing else is known.
            point.figures or known.get(point.trial) or _figures(point),
            target=point.target,
        )
        for place, point in enumerate(tuned.front)
    ]


def _trials(tuned: Tuned) -> Sequence[TriedEntry]:
    """Return all trials as the report has them."""
    taken = tuned.front[0].trial
    return [
        TriedEntry(
            f"trial {trial.number}",
            trial.pipeline,
            "taken" if trial.number == taken else "left",
            trial.why,
            trial.figures,
            seconds=trial.seconds,
            target=trial.target or tuned.front[0].target,
        )
        for trial in tuned.trials
    ]


def _figures(point: Point) -> dict[str, Interval]:
    """Return the values of objectives under the names of figures."""
    found = {}
    for name, value in point.values.items():
        figure = {"latency": "speedup", "loss": "loss:main"}.get(name, name)
        found[figure] = Interval.exact(1 / value if name == "latency" else value)
    if point.milliseconds is not None:
        found["latency"] = Interval.exact(point.milliseconds[1])
    return found
