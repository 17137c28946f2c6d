"""Options and steps that verbs share which make a model: what is judged, and what is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from irtools.cli import options as options
from irtools.cli.source import load_options, source_options
from irtools.cli.types import DATA, METRIC, OUT

if TYPE_CHECKING:
    from irtools.driver.result import OptimizeResult
    from irtools.driver.settings import Settings
    from irtools.files import Store
    from irtools.report.document import Report
    from irtools.targets import Target

__all__ = [
    "artifact_options",
    "cache_folder",
    "judging_options",
    "open_store",
    "searching_options",
    "searching_targets",
    "settings_of",
    "write_result",
]

F = TypeVar("F", bound=Callable[..., Any])


def judging_options(function: F) -> F:
    """Options for data and metrics of a verb that makes a model."""
    for add in reversed(
        (*_DATA, options.data_options, options.calibration_samples_option, _METRIC, _HIDDEN)
    ):
        function = add(function)
    return function


_DATA = (
    options.calibrate_option,
    options.evaluate_option,
    click.option(
        "--holdout",
        type=DATA,
        help="Other samples, to quote figures of where --evaluate is chosen by. [default: half of "
        "--evaluate, split at random by --seed]",
    ),
)
_METRIC = click.option(
    "--metric",
    type=METRIC,
    multiple=True,
    help="accuracy, multilabel-f1-micro, perplexity, ..., lm-eval:TASK (a task's YAML) or "
    "module:function; again for further ones. [default: by the labels: multilabel-f1-micro for "
    "rows of 0/1, else accuracy; perplexity of models that write text]",
)


_HIDDEN = click.option(
    "--hide-samples",
    is_flag=True,
    help="Keep texts and pictures of samples whose answer changed out of the report.",
)


def artifact_options(function: F) -> F:
    """Options for what a verb writes."""
    for add in reversed(_ARTIFACT):
        function = add(function)
    return function


_ARTIFACT = (
    click.option(
        "--html",
        "html_path",
        type=OUT,
        help="Write the report as a page: one file that needs no network and no script.",
    ),
    click.option(
        "--output",
        "-o",
        type=OUT,
        help="FILE.onnx: the model as it was timed. A folder: what the target loads, "
        "report.json and report.html. [default: <name>.opt.onnx]",
    ),
    click.option(
        "--portable",
        is_flag=True,
        help="Standard operators only, so that any runtime reads the file.",
    ),
    click.option("--force", "-f", is_flag=True, help="Replace what exists."),
    click.option(
        "--external-data",
        is_flag=True,
        default=None,
        help="Weights in a file next to the model.",
    ),
)


def searching_options(function: F) -> F:
    """Everything that decides what is searched for, of a verb that runs on several machines."""
    for add in reversed(_SEARCHING):
        function = add(function)
    return function


_SEARCHING = (
    options.on_option,
    judging_options,
    options.goal_options,
    options.batch_option,
    options.sequence_option,
    options.past_option,
    options.threads_option,
    options.seed_option,
    options.effort_option,
    options.cache_options,
    options.json_option,
    options.size_option,
    options.fix_option,
    source_options,
    options.work_dir_option,
)


def searching_targets(
    given: dict[str, Any], targets: Sequence[str], on: str | None
) -> tuple[Target, ...]:
    """Check the options of `searching_options`, before any large library is imported.

    Args:
        given: The options; effort and goals are put in as values.
        targets: What `--target` says.
        on: Workers: a target may be that of other machines.

    Raises:
        UsageError: What is wrong.
    """
    from irtools.measure.effort import Effort
    from irtools.targets import find_target

    given["effort"] = Effort.parse(given["effort"])
    given["goals"] = options.goals_of(given)
    return tuple(find_target(target, check=on is None) for target in targets)


def settings_of(target: Target | str, given: Mapping[str, Any]) -> Settings:
    """Turn the options of a verb into settings; what it has no option for keeps its default."""
    from irtools.driver.settings import Settings
    from irtools.measure.base import BenchSettings
    from irtools.plugins import is_task

    bench = BenchSettings(given["batch"], given["sequence"], given["threads"], past=given["past"])
    check = not given.get("no_check", False)
    named = ("timed", "new_tokens", "drop_slower", "seed", "threads")
    metrics = given["metric"] or ()
    tasks = (one for one in metrics if is_task(one))
    data = (given["calibrate"], given["evaluate"], given["holdout"], *tasks)
    figures = given.get("figures")
    return Settings(
        target=target,
        loading=load_options(given, check=check),
        data=options.data_settings(given, *data),
        metric=metrics or None,
        goals=given["goals"],
        bench=None if given.get("no_bench", False) else bench,
        figures=tuple(figures.split(",")) if figures else (),
        check=check,
        portable=given["portable"],
        show_samples=not given["hide_samples"],
        effort=given["effort"],
        **{name: given[name] for name in named if name in given},
    )


def cache_folder(given: Mapping[str, Any]) -> Path | None:
    """Return where results are kept between runs; None: nowhere."""
    return None if given["no_cache"] else _folder_of_cache(given["cache_dir"])


def open_store(cache_dir: str | None) -> Store:
    """Return the store of `--cache-dir`, which reports what is wrong with it."""
    from irtools.cli.console import say
    from irtools.files import Store

    return Store(_folder_of_cache(cache_dir), warn=lambda line: say(f"irc: note: {line}"))


def _folder_of_cache(cache_dir: str | None) -> Path:
    from irtools.measure.cache import default_cache

    return Path(cache_dir) if cache_dir else default_cache()


def write_result(
    result: OptimizeResult,
    source: str,
    output: str | None,
    json_path: str | None,
    given: Mapping[str, Any],
) -> Report:
    """Write what was made, checked, and print its report, which is returned."""
    from irtools.cli.console import console, say, write_json
    from irtools.data import resolve_sizes
    from irtools.driver.artifact import write_artifact
    from irtools.files import write_text
    from irtools.report.table import report_view
    from irtools.words import size_text

    report, files = write_artifact(
        result,
        output,
        source=source,
        force=given["force"],
        external_data=given["external_data"],
        sizes=resolve_sizes(result.model, given["drawn_sizes"]),
    )
    if json_path is not None:
        write_json(report.to_dict(), json_path)
    if given["html_path"] is not None:
        from irtools.report.page import report_page

        write_text(Path(given["html_path"]), report_page(report))
    shown = console()
    for part in report_view(report):
        shown.print(part)
    for note in report.artifact.notes if report.artifact is not None else ():
        say(f"irc: note: {note}")
    size = sum(path.stat().st_size for path in files)
    say(f"irc: wrote {', '.join(str(path) for path in files)} ({size_text(size)})")
    return report
