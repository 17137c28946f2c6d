"""What `irc why` and `irc diff` make of their options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irtools.cli import options as options

if TYPE_CHECKING:
    from irtools.causes import CollectSettings, ComparedOn, Subject
    from irtools.sources import LoadOptions
    from irtools.targets import Target

__all__ = ["measuring", "runs_option", "samples_of", "subject_of"]

runs_option = click.option(
    "--runs",
    type=click.IntRange(1, 1000),
    metavar="N",
    default=10,
    show_default=True,
    help="Runs of the runtime's profiler; the median of each node counts.",
)


def subject_of(source: str, target: Target, loading: LoadOptions) -> Subject:
    """Load one of the two models.

    Raises:
        UsageError: It is a file that a runtime alone can read.
        IrtoolsError: As `load_source`.
    """
    from irtools.causes import Subject
    from irtools.driver.contenders import load_contender
    from irtools.model import planned_size

    model = load_contender(source, target, loading)
    if isinstance(model, Path):
        raise click.UsageError(
            f"{source} is compiled, and its nodes are unknown: give the .onnx file it was made of"
        )
    path = Path(source)
    return Subject(source, model, _bytes(path) if path.is_file() else planned_size(model.ir))


def samples_of(
    first: Subject, given: dict[str, Any], evaluate: str | None, calibrate: str | None = None
) -> ComparedOn:
    """Read the data.

    Raises:
        IrtoolsError: It cannot be read, or does not fit the first model.
    """
    from irtools.causes import ComparedOn
    from irtools.driver.inputs import read_calibration, read_evaluation

    reading = options.data_settings({**given, "samples": None}, evaluate, calibrate)
    return ComparedOn(
        read_evaluation(evaluate, first.model, reading),
        read_calibration(calibrate, first.model, reading),
        evaluate,
    )


def measuring(given: dict[str, Any], shown: Any) -> CollectSettings:
    """Return how much is measured."""
    from irtools.causes import CollectSettings
    from irtools.measure.base import BenchSettings

    bench = BenchSettings(
        given["batch"][:1],
        given["sequence"][:1],
        given["threads"],
        max_seconds=given.get("max_seconds", 30.0),
    )
    return CollectSettings(
        None if given["no_bench"] else bench,
        given["runs"],
        given["samples"],
        given["seed"],
        dict(given["drawn_sizes"]),
        shown,
    )


def _bytes(path: Path) -> int:
    from irtools.model import weight_files

    return sum(one.stat().st_size for one in (path, *weight_files(path)) if one.is_file())
