"""`irc tune`: many pipelines, and the front of the best ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from irtools.cli.running import (
    artifact_options,
    cache_folder,
    searching_options,
    searching_targets,
    settings_of,
    write_result,
)
from irtools.cli.types import FILE, SOURCE, TARGET
from irtools.cli.verb import Verb

__all__ = ["tune"]


@click.command(
    cls=Verb,
    epilog="Example: irc tune model.onnx --objective latency --max-drop 1% --trials 60 --calibrate "
    "calib.npz --evaluate test.npz --storage tune.db -o best/",
)
@click.argument("source", metavar="SRC", type=SOURCE)
@click.option(
    "--target",
    "-t",
    "targets",
    type=TARGET,
    multiple=True,
    default=("ort-cpu",),
    show_default=True,
    help="What runs the model; again to search over several targets, with times in those of the "
    "original on the first one.",
)
@click.option(
    "--objective",
    "objectives",
    multiple=True,
    default=("latency",),
    show_default=True,
    metavar="NAME",
    help="What to make small: latency, size, memory or loss; again for further ones. The first "
    "one says which point of the front is written.",
)
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    default=60,
    show_default=True,
    metavar="N",
    help="Pipelines to try, those in --storage among them.",
)
@click.option(
    "--storage",
    type=FILE,
    help="A SQLite file that keeps the trials: the same command goes on where it was stopped.",
)
@searching_options
@artifact_options
def tune(
    source: str,
    targets: tuple[str, ...],
    objectives: tuple[str, ...],
    trials: int,
    storage: str | None,
    on: str | None,
    output: str | None,
    json_path: str | None,
    **given: Any,
) -> None:
    """Try many pipelines on the model SRC, and write the best of those that keep the goals.

    Passes, their options, bits and shares are drawn by Optuna (extra `tune`). A trial goes on from
    what an earlier one with the same beginning made, and ends before it is timed where it loses
    too much. The best three are timed once more, alternating, before one is chosen. The table has
    the Pareto front; each of its pipelines makes its point again. With --on trials run on several
    machines; times are taken on those that are like the target.
    """
    from irtools.driver.destination import Destination, check_writable

    chosen = searching_targets(given, targets, on)
    Destination.of(output, source, force=given["force"])
    for path in (json_path, given["html_path"], storage):
        if path not in (None, "-"):
            check_writable(Path(str(path)))
    from irtools.cli.console import progress, say
    from irtools.executors import open_executor
    from irtools.search import tune_model

    with progress() as shown:
        result = tune_model(
            source,
            settings_of(chosen[0], given),
            targets=chosen,
            objectives=objectives,
            trials=trials,
            storage=None if storage is None else Path(storage),
            calibration=given["calibrate"],
            evaluation=given["evaluate"],
            holdout=given["holdout"],
            progress=shown,
            cache=cache_folder(given),
            executor=None if on is None else open_executor(on),
            on_note=lambda line: say(f"irc: {line}"),
            on_trial=lambda number, text, outcome: say(f"irc: trial {number}: {text}: {outcome}"),
        )
    write_result(result, source, output, json_path, given)
