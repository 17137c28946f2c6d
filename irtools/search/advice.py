"""What could be done beyond what a search did, each with its command."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from irtools.data import open_axes
from irtools.driver.inputs import DataLike
from irtools.driver.job import Job, ModelLike
from irtools.search.climb import Climbed
from irtools.targets import Target, target_text

__all__ = ["Given", "command", "next_steps"]


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
    settings = job.settings
    parts = ["irc optimize", shlex.quote(given.source), f"--passes {shlex.quote(pipeline)}"]
    if (text := _target(job.target)) != "ort-cpu":
        parts.append(f"--target {text}")
    parts += given.options()
    parts += [f"--{goal.name} {_bound(str(goal))}" for goal in settings.wanted.needing("data")]
    parts += [f"--metric {one}" for one in settings.metrics if isinstance(one, str)]
    if settings.seed:
        parts.append(f"--seed {settings.seed}")
    return " ".join(parts)


def next_steps(given: Given, job: Job, climbed: Climbed) -> Iterator[str]:
    """Yield what was not tried because something is missing, and what takes training."""
    source = shlex.quote(given.source)
    if given.calibrate is None:
        yield (
            "ranges from real samples, and pruning, which is refitted to them: "
            f"irc optimize {source} --calibrate DATA"
        )
    if given.evaluate is None:
        yield (
            "a budget for what may be lost, decided on labelled samples: "
            f"irc optimize {source} --evaluate DATA --max-drop 1%"
        )
    if climbed.keeps and not climbed.scene.is_open:
        return
    if not climbed.scene.is_open or climbed.scene.has_data:
        yield from _fixed(source, job)
        if climbed.scene.goals.of("speedup", "max-latency") or climbed.scene.is_open:
            yield f"the other targets of this machine: irc optimize {source} --target auto"
    if not climbed.keeps:
        yield (
            "a student of fewer layers, which needs the checkpoint and training data: "
            "irc distill CHECKPOINT --student LAYERSxHIDDEN --train DATA -o student/"
        )


def _fixed(source: str, job: Job) -> Iterator[str]:
    """Fixed sizes change what callers may feed, so that they are not tried unasked."""
    axes = [axis.key for axis in open_axes(job.model) if not axis.is_batch]
    if axes:
        fixed = " ".join(f"--fix {shlex.quote(axis)}=N" for axis in dict.fromkeys(axes))
        yield f"fixed sizes, to which callers pad: irc optimize {source} {fixed}"


def _named(value: object, memory: str) -> str | None:
    if value is None:
        return None
    return os.fspath(value) if isinstance(value, str | os.PathLike) else memory


def _bound(goal: str) -> str:
    return goal.partition("=")[2]


def _target(target: Target) -> str:
    return target.name if target.runs_here else target_text(target)
