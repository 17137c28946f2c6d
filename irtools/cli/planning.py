"""What the verbs share that show what the last pass of a pipeline would decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from irtools.cli import options as options
from irtools.cli.source import load_options, source_options
from irtools.cli.types import DATA, PIPELINE

if TYPE_CHECKING:
    from irtools.driver.planning import Planned
    from irtools.passmanager import Pipeline

__all__ = ["planned_for", "planning_arguments", "planning_options"]

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--passes",
        "-p",
        type=PIPELINE,
        required=True,
        help="Pipeline; the last pass is planned, those before it are run.",
    ),
    options.target_option,
    click.option("--calibrate", type=DATA, help="Data for ranges and importance."),
    options.data_options,
    options.calibration_samples_option,
    options.threads_option,
    options.seed_option,
    options.size_option,
    options.fix_option,
    source_options,
    options.work_dir_option,
)


def planning_options(function: F) -> F:
    """Pipeline, data and source of a plan."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@contextmanager
def planned_for(source: str, pipeline: Pipeline, given: Mapping[str, Any]) -> Iterator[Planned]:
    """Plan the last pass as the options of `planning_options` say, with progress on stderr."""
    from irtools.cli.console import progress
    from irtools.driver.planning import planned

    with (
        progress() as shown,
        planned(source, pipeline, **planning_arguments(given), progress=shown) as found,
    ):
        yield found


def planning_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `planned` that the options of `planning_options` say."""
    return {
        "loading": load_options(given),
        "target": given["target"],
        "calibration": given["calibrate"],
        "data": options.data_settings(given, given["calibrate"]),
        "seed": given["seed"],
        "threads": given["threads"],
    }
