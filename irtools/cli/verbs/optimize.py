"""`irc optimize`: the main job."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irtools.cli import options as options
from irtools.cli.needs import say_needs
from irtools.cli.running import (
    artifact_options,
    cache_folder,
    judging_options,
    settings_of,
    write_result,
)
from irtools.cli.source import source_options
from irtools.cli.types import FIGURES, FILE, FOLDER, PASS, PIPELINE, SOURCE
from irtools.cli.verb import Verb
from irtools.errors import FileError, PipelineSyntaxError

if TYPE_CHECKING:
    from irtools.driver.result import OptimizeResult
    from irtools.passmanager import Instrument, Pipeline, Plan
    from irtools.search import SearchError
    from irtools.trackers import RunLog, Tracker

__all__ = ["optimize"]


@click.command(
    cls=Verb,
    epilog="Examples: irc optimize model.onnx --speedup 3 --max-drop 1% --calibrate calib.npz "
    "--evaluate test.npz -o small.onnx; irc optimize model.onnx --passes cleanup,fuse,int8",
)
@click.argument("source", metavar="SRC", type=SOURCE)
@click.option(
    "--passes",
    "-p",
    type=PIPELINE,
    help="Pipeline: name:key=value:key=value, joined by commas; `irc passes` lists them. "
    "[default: found for the goals; without goals what is safe and faster]",
)
@click.option("--pipeline", "pipeline_file", type=FILE, help="Pipeline as a TOML file.")
@options.target_option
@judging_options
@options.goal_options
@click.option(
    "--drop-slower", is_flag=True, help="Undo lossy passes that make the model slower than it was."
)
@options.batch_option
@options.sequence_option
@options.past_option
@options.threads_option
@options.seed_option
@click.option(
    "--new-tokens",
    type=click.IntRange(min=0),
    metavar="N",
    help="Tokens that a decoder writes to each prompt, to compare its text with the "
    "original's; 0: none. [default: 32; none where every pass keeps the function and there is no "
    "data]",
)
@options.effort_option
@click.option(
    "--bench",
    "timed",
    type=click.Choice(["each", "end", "last", "none"]),
    help="Which models are timed: after each pass; after lossy passes and at the end of exact "
    "ones in a row; the last one. [default: end; quick: last; thorough: each]",
)
@click.option(
    "--figures",
    type=FIGURES,
    help="Further figures of the original and the result, joined by commas: first-run (load and "
    "first inference), profile (time by kernel and module), layers (closeness along the graph), "
    "energy (where the CPU's counters can be read), sensitivity (what each layer costs: predicted, "
    "and the costliest alone on calibration data).",
)
@click.option("--no-bench", is_flag=True, help="Do not time the models, as --bench none.")
@click.option(
    "--no-check",
    is_flag=True,
    help="Do not compare numbers before and after each pass, nor the result with the original "
    "unless --evaluate gives data, and write the result even where its metric collapsed.",
)
@options.cache_options
@click.option(
    "--plan",
    "plan_files",
    multiple=True,
    type=FILE,
    help="Replay a plan that `irc plan --json` printed.",
)
@click.option("--bisect-limit", type=int, metavar="N", help="Run the first N passes only.")
@click.option(
    "--print-ir-before", type=PASS, metavar="PASS", help="Print the model before a pass, or `all`."
)
@click.option(
    "--print-ir-after", type=PASS, metavar="PASS", help="Print the model after a pass, or `all`."
)
@click.option("--print-ir-after-change", is_flag=True, help="Print it after passes that change it.")
@click.option("--dump-ir", type=FOLDER, help="Write these prints to files in DIR.")
@click.option("--json", "--report", "json_path", type=FILE, help="Write the report; - is stdout.")
@options.track_option
@artifact_options
@options.size_option
@options.fix_option
@click.option(
    "--may-fix",
    type=options.NAMED_SIZE,
    metavar="AXIS=N",
    multiple=True,
    help="Without --passes: where nothing else keeps the goals, try the same with this size fixed, "
    "as --fix does; callers then pad to it.",
)
@source_options
@options.work_dir_option
def optimize(source: str, output: str | None, json_path: str | None, **given: Any) -> None:
    """Make the model SRC smaller and faster; every pass is verified, checked and measured.

    With --passes these are run. Without them pipelines are tried, cheap and safe ones first, until
    one keeps the goals (--speedup, --max-latency, --max-size, --max-memory, --max-drop,
    --min-metric); without goals what is safe and faster here is taken.

    SRC is an ONNX file, a Transformers checkpoint folder, a GGUF file or module:function. Data is
    an .npz, .jsonl or .csv file, an image folder or module:function. The table goes to stderr.
    """
    # What can be wrong in the command line is found before any large library is imported.
    from irtools.targets import find_target

    auto = given["target"] == "auto"
    target = None if auto else find_target(given["target"], check=False)
    from irtools.measure.effort import Effort
    from irtools.measure.sandbox import children_ahead

    click.get_current_context().with_resource(children_ahead(given["target"]))

    given["effort"] = Effort.parse(given["effort"])
    if given["no_bench"] and given["timed"] not in (None, "none"):
        raise click.UsageError(f"--no-bench and --bench {given['timed']} exclude each other")
    given["no_bench"] |= given["timed"] == "none"
    given["goals"] = options.goals_of(given)
    _check_goals(given)
    pipeline = _pipeline(given["passes"], given["pipeline_file"])
    plans = [_read_plan(path) for path in given["plan_files"]]
    from irtools.driver.destination import Destination, check_writable

    destination = Destination.of(output, source, force=given["force"])
    say_needs(
        source,
        destination.path.parent,
        exports=not source.endswith(".onnx"),
        optimizes=True,
        compares=not (given["no_check"] and given["no_bench"]),
    )
    for path in (json_path, given["html_path"]):
        if path not in (None, "-"):
            check_writable(Path(str(path)))
    trackers = _trackers(given["track"])
    if target is not None:
        target.check_available()
    with _tracked(trackers, source, pipeline) as log:
        result = _run(source, pipeline, plans, target or "auto", given, log)
        if not given["no_check"]:
            from irtools.driver.collapse import reject_collapsed

            reject_collapsed(result)
        report = write_result(result, source, output, json_path, given)
        log.finish(report)


def _trackers(texts: tuple[str, ...]) -> tuple[Tracker, ...]:
    if not texts:
        return ()
    from irtools.trackers import find_trackers

    return find_trackers(texts)


def _tracked(trackers: tuple[Tracker, ...], source: str, pipeline: Pipeline | None) -> RunLog:
    """Begin the run of the trackers; without any nothing is written."""
    from irtools.cli.console import say
    from irtools.driver.destination import stem_of
    from irtools.trackers import RunLog

    return RunLog(
        trackers,
        stem_of(source),
        lambda line: say(f"irc: {line}"),
        parameters={} if pipeline is None else {"pipeline": str(pipeline)},
        tags={"source": source},
    )


def _check_goals(given: dict[str, Any]) -> None:
    """Refuse what only a pipeline has where none is given, and times where nothing is timed."""
    timed = given["goals"].needing("times")
    if given["no_bench"] and len(timed):
        raise click.UsageError(
            f"--{timed.goals[0].name} needs the benchmark, and nothing is to be timed (--bench "
            "none, --no-bench)"
        )
    if given["holdout"] and not given["evaluate"]:
        raise click.UsageError("--holdout goes with --evaluate, which there is nothing of")
    if given["passes"] is not None or given["pipeline_file"] is not None:
        if given["may_fix"]:
            raise click.UsageError("--may-fix is for a search: with --passes give --fix")
        return
    for option, value in (
        ("--plan", given["plan_files"]),
        ("--bisect-limit", given["bisect_limit"] is not None),
        ("--drop-slower", given["drop_slower"]),
    ):
        if value:
            raise click.UsageError(f"{option} is for a pipeline: name one with --passes")


def _pipeline(passes: str | None, file: str | None) -> Pipeline | None:
    from irtools.passmanager import Pipeline

    if passes is not None and file is not None:
        raise click.UsageError("give --passes TEXT or --pipeline FILE, not both")
    if passes is not None:
        return Pipeline.parse(passes)
    if file is None:
        return None
    found = Pipeline.from_toml(_read(file))
    if not len(found):
        raise PipelineSyntaxError(f"{file} holds no passes")
    return found


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is not a text file") from error


def _read_plan(path: str) -> Plan:
    from irtools.passmanager import Plan

    return Plan.from_json(_read(path))


def _run(
    source: str,
    pipeline: Pipeline | None,
    plans: list[Plan],
    target: Any,
    given: dict[str, Any],
    log: RunLog,
) -> OptimizeResult:
    from irtools.cli.console import outlook
    from irtools.plugins import all_of
    from irtools.search import SearchError
    from irtools.search import optimize as run

    with outlook() as shown:
        try:
            return run(
                source,
                pipeline,
                settings_of(target, given),
                calibration=given["calibrate"],
                evaluation=given["evaluate"],
                holdout=given["holdout"],
                plans=plans,
                instruments=tuple(_instruments(given)),
                progress=shown,
                cache=cache_folder(given),
                on_row=all_of(shown.row, log.row),
                on_outlook=shown.remaining,
                on_tried=all_of(shown.tried, log.tried),
                may_fix=dict(given["may_fix"]),
            )
        except SearchError as error:
            _show_tried(error)
            raise


def _show_tried(error: SearchError) -> None:
    """Print what was tried where nothing of it will do."""
    from irtools.cli.console import console
    from irtools.report.tried import tried_view

    shown = console()
    for part in tried_view(error.tried, error.next):
        shown.print(part)


def _instruments(given: dict[str, Any]) -> Iterator[Instrument]:
    from irtools.instruments import BisectLimit, IrDump

    to = Path(given["dump_ir"]) if given["dump_ir"] else sys.stdout
    before, after = given["print_ir_before"], given["print_ir_after"]
    on_change = given["print_ir_after_change"]
    if before is not None:
        yield IrDump("before", to, _names(before))
    if after is not None:
        yield IrDump("after", to, _names(after))
    if on_change or (given["dump_ir"] and before is None and after is None):
        yield IrDump("change", to)
    if given["bisect_limit"] is not None:
        yield BisectLimit(given["bisect_limit"], sys.stderr)


def _names(text: str) -> tuple[str, ...]:
    return () if text == "all" else tuple(text.split(","))
