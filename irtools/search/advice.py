"""What could be done beyond what a search did, each with its command."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from irtools.analysis.inspection import quantized_share
from irtools.data import open_axes
from irtools.driver.inputs import DataLike
from irtools.driver.job import Job, ModelLike
from irtools.driver.settings import Settings
from irtools.goals import Goals
from irtools.search.climb import Climbed
from irtools.targets import Target, target_text

__all__ = ["Given", "command", "next_steps"]

_MOSTLY = 0.5
"""Part of the weights in 8 bits or fewer from which a model counts as quantized."""


@dataclass(frozen=True)
class Given:
    """What a caller gave, as a command line names it.

    Attributes:
        source: The model.
        calibrate: Calibration data; None: none.
        evaluate: Evaluation data; None: none.
        holdout: Samples to quote; None: none.
    """

    source: str
    calibrate: str | None
    evaluate: str | None
    holdout: str | None

    @classmethod
    def of(
        cls,
        model: ModelLike,
        calibration: DataLike | None,
        evaluation: DataLike | None,
        holdout: DataLike | None,
    ) -> Given:
        """Take the names of files; what is in memory has a place holder."""
        return cls(
            _named(model, "MODEL") or "MODEL",
            _named(calibration, "DATA"),
            _named(evaluation, "DATA"),
            _named(holdout, "DATA"),
        )

    def options(self) -> Iterator[str]:
        """Yield the options that give the data."""
        for option in ("calibrate", "evaluate", "holdout"):
            if (value := getattr(self, option)) is not None:
                yield f"--{option} {shlex.quote(value)}"


def command(given: Given, job: Job, pipeline: str) -> str:
    """Return the command that runs a pipeline as a search did, without searching."""
    return _again(
        given, job, f"--passes {shlex.quote(pipeline)}", job.settings.wanted.needing("data")
    )


def _again(given: Given, job: Job, more: str, goals: Goals, target: str = "") -> str:
    """Return the command of a run with some of its goals, and something more."""
    settings = job.settings
    parts = ["irc optimize", shlex.quote(given.source), more, *given.options()]
    target = target or _target(job.target)
    parts += [f"--target {target}"] if target != "ort-cpu" else []
    parts += [f"--{goal.name} {shlex.quote(str(goal).partition('=')[2])}" for goal in goals]
    parts += [f"--metric {one}" for one in settings.metrics if isinstance(one, str)]
    parts += _reading(settings)
    return " ".join(part for part in parts if part)


def _reading(settings: Settings) -> Iterator[str]:
    """Yield the options that decide what is read, where they are not at their default."""
    data = settings.data
    found = [
        ("--tokenizer", data.tokenizer),
        *(("--text", column) for column in data.text_columns or ()),
        ("--label", data.label_column),
        ("--max-length", data.max_length),
        ("--samples", data.samples),
        *(("--fix", f"{axis}={size}") for axis, size in settings.loading.sizes),
        ("--seed", settings.seed or None),
    ]
    yield from (f"{option} {shlex.quote(str(value))}" for option, value in found if value)
    if settings.portable:
        yield "--portable"
    if not settings.show_samples:
        yield "--hide-samples"


def next_steps(given: Given, job: Job, climbed: Climbed, *, on_all: bool = False) -> Iterator[str]:
    """Yield what was not tried because something is missing, and what takes training.

    Args:
        given: What a caller gave.
        job: The run.
        climbed: Where the search ended.
        on_all: All targets of this machine are tried.
    """
    goals, scene = job.settings.wanted, climbed.scene
    quantized = quantized_share(job.model) > _MOSTLY
    if quantized:
        # Ranges, pruning and refits are for weights in floating point.
        first = dataclasses.replace(given, source="ORIGINAL")
        more = _again(first, job, "" if given.calibrate else "--calibrate DATA", goals)
        yield f"the model that this one, which is quantized already, was made from: {more}"
    elif given.calibrate is None:
        more = _again(given, job, "--calibrate DATA", goals)
        yield f"ranges from real samples, and pruning, which is refitted to them: {more}"
    if given.evaluate is None:
        budget = "" if goals.of("max-drop") else " --max-drop 1%"
        more = _again(given, job, f"--evaluate DATA{budget}", goals)
        yield f"a budget for what may be lost, decided on labelled samples: {more}"
    if scene.is_open and given.calibrate is not None and not quantized:
        more = _again(given, job, "--speedup N", goals)
        yield f"pruning and early exits, until a speed is reached: {more}"
    if climbed.keeps and not scene.is_open:
        return
    axes = dict.fromkeys(axis.key for axis in open_axes(job.model) if not axis.is_batch)
    if axes:
        # They change what callers may feed, so that they are not tried unasked.
        fixed = _again(given, job, " ".join(f"--fix {shlex.quote(axis)}=N" for axis in axes), goals)
        yield f"fixed sizes, to which callers pad: {fixed}"
    if scene.wants_speed and not on_all:
        yield f"the other targets of this machine: {_again(given, job, '', goals, 'auto')}"
    if not climbed.keeps:
        yield (
            "a student of fewer layers, which needs the checkpoint and training data: "
            "irc distill --teacher CHECKPOINT --student hidden=192,layers=3 --train DATA "
            "--evaluate DATA -o student/"
        )


def _named(value: object, memory: str) -> str | None:
    if value is None:
        return None
    return os.fspath(value) if isinstance(value, str | os.PathLike) else memory


def _target(target: Target) -> str:
    return target.name if target.runs_here else target_text(target)
