"""Tuning as a whole: from a source to the best model and the front."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from irtools.driver.inputs import DataLike
from irtools.driver.job import Job, ModelLike, Watch, as_model
from irtools.driver.outcome import check_kept, outcomes
from irtools.driver.result import OptimizeResult, Search, make_result
from irtools.driver.session import open_session
from irtools.driver.settings import Settings
from irtools.goals import Interval
from irtools.passmanager import Pipeline
from irtools.plugins import NullProgress, Progress
from irtools.report.entries import TriedEntry
from irtools.search.advice import Given, command
from irtools.search.state import only_changes
from irtools.search.tune import Tuned, check_objectives, tune
from irtools.targets import target_text

__all__ = ["tune_model"]


def tune_model(
    model: ModelLike,
    settings: Settings = Settings(),
    *,
    objectives: Sequence[str] = ("latency",),
    trials: int = 60,
    storage: Path | None = None,
    calibration: DataLike | None = None,
    evaluation: DataLike | None = None,
    holdout: DataLike | None = None,
    progress: Progress | None = None,
    cache: Path | None = None,
    on_trial: Callable[[int, str, str], None] = lambda number, pipeline, outcome: None,
    **options: Any,
) -> OptimizeResult:
    """Try many pipelines; return the best in the first objective, with the front in its report.

    Args:
        model: As `optimize` takes it, like all that is not named here.
        objectives: What to make small: `latency`, `size`, `memory`, `loss`; the first one decides
            which point of the Pareto front is the result.
        trials: Pipelines to try, those in the storage among them.
        storage: A SQLite file in which trials are kept, so that a search can go on; None: none.
        on_trial: Called with the number of a trial, its pipeline and what came of it.

    Raises:
        MissingExtraError: The extra `tune` is not installed.
        UsageError: There is no such objective, it cannot be measured, or no trial keeps the goals.
        IrtoolsError: As `optimize`.
    """
    started = time.monotonic()
    chosen = settings.changed(options)
    check_objectives(objectives, chosen, labelled=evaluation is not None)
    given = Given.of(model, calibration, evaluation, holdout)
    job = Job.read(
        as_model(model, chosen.loading),
        Pipeline(),
        chosen,
        calibration=calibration,
        evaluation=evaluation,
        holdout=holdout,
        cache=cache,
        watch=Watch(progress=progress or NullProgress()),
    )
    with open_session(job, searching=True) as session:
        tuned = tune(session, objectives, trials, storage=storage, on_trial=on_trial)
        steps = only_changes(tuned.state.steps)
        pipeline = Pipeline(*(step.pass_ for step in steps[1:]))
        session.job = dataclasses.replace(job, pipeline=pipeline)
        found = outcomes(chosen.wanted, session.quote(steps))
        check_kept(found)
        text = command(given, session.job, str(pipeline)) if len(pipeline) else ""
        where = target_text(job.target)
        search = Search(tuple(_entries(tuned, where)), text, trials=tuple(_trials(tuned, where)))
        return make_result(session, steps, started, found, search)


def _entries(tuned: Tuned, target: str) -> Sequence[TriedEntry]:
    """Return the front as the report has it."""
    known = {trial.number: trial.figures for trial in tuned.trials}
    return [
        TriedEntry(
            f"trial {point.trial}",
            point.pipeline,
            "left" if place else "taken",
            "on the front",
            # Of a trial that an earlier version stored nothing else is known.
            known.get(point.trial) or _figures(point.values),
            target=target,
        )
        for place, point in enumerate(tuned.front)
    ]


def _trials(tuned: Tuned, target: str) -> Sequence[TriedEntry]:
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
            target=target,
        )
        for trial in tuned.trials
    ]


def _figures(values: Mapping[str, float]) -> dict[str, Interval]:
    """Return the values of objectives under the names of figures."""
    found = {}
    for name, value in values.items():
        figure = {"latency": "speedup", "loss": "loss:main"}.get(name, name)
        found[figure] = Interval.exact(1 / value if name == "latency" else value)
    return found
