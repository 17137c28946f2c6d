"""`irc optimize`: the main job."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irtools.cli import options as options
from irtools.cli.source import load_options, source_options
from irtools.cli.types import DATA, FIGURES, FILE, FOLDER, METRIC, OUT, PASS, PIPELINE, SOURCE
from irtools.cli.verb import Verb
from irtools.errors import FileError, PipelineSyntaxError

if TYPE_CHECKING:
    from irtools.driver.optimize import OptimizeResult
    from irtools.driver.settings import Settings
    from irtools.passmanager import Instrument, Pipeline, Plan
    from irtools.targets import Target

__all__ = ["optimize"]


@click.command(
    cls=Verb,
    epilog="Example: irc optimize model.onnx --passes prune:speedup=1.5,int8 --calibrate "
    "calib.npz --evaluate test.npz --metric accuracy --max-drop 1% -o small.onnx",
)
@click.argument("source", metavar="SRC", type=SOURCE)
@click.option(
    "--passes",
    "-p",
    type=PIPELINE,
    help="Pipeline: name:key=value:key=value, joined by commas; `irc passes` lists them.",
)
@click.option("--pipeline", "pipeline_file", type=FILE, help="Pipeline as a TOML file.")
@options.target_option
@click.option("--calibrate", type=DATA, help="Data for ranges and refits.")
@click.option("--evaluate", type=DATA, help="Data for fidelity and, with labels, the metric.")
@options.data_options
@options.calibration_samples_option
@click.option(
    "--metric",
    type=METRIC,
    help="accuracy, multilabel-f1-micro, perplexity, ... or module:function. [default: by the "
    "labels: multilabel-f1-micro for rows of 0/1, else accuracy; perplexity of models that write "
    "text]",
)
@click.option(
    "--max-drop",
    type=options.PERCENT,
    help="Largest loss of the metric (1%: one point of accuracy) or, without labels, of top-1 "
    "agreement. Passes that lose more are rolled back.",
)
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
    default=32,
    show_default=True,
    help="Tokens that a decoder writes to each prompt, to compare its text with the "
    "original's; 0: none.",
)
@click.option(
    "--effort",
    metavar="EFFORT",
    default="normal",
    show_default=True,
    help="How much time measuring may take: quick, normal, thorough, or seconds (90, 2m). How "
    "much is measured is planned from what one run of the model costs.",
)
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
    help="Further figures of the original and the result: first-run (load and first inference), "
    "energy (where the CPU's counters can be read), or both joined by a comma.",
)
@click.option("--no-bench", is_flag=True, help="Do not time the models, as --bench none.")
@click.option(
    "--no-check",
    is_flag=True,
    help="Do not compare numbers before and after each pass, nor the result with the original "
    "unless --evaluate gives data, and write the result even where its metric collapsed.",
)
@click.option(
    "--cache-dir",
    metavar="DIR",
    help="Where results of passes and scores are kept between runs; `irc cache` shows it. "
    "[default: irtools in $XDG_CACHE_HOME or ~/.cache]",
)
@click.option("--no-cache", is_flag=True, help="Do not keep them.")
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
@click.option(
    "--output",
    "-o",
    type=OUT,
    help="FILE.onnx: the model as it was timed. A folder: what the target loads, and report.json. "
    "[default: <name>.opt.onnx]",
)
@click.option(
    "--portable", is_flag=True, help="Standard operators only, so that any runtime reads the file."
)
@click.option("--force", "-f", is_flag=True, help="Replace what exists.")
@click.option(
    "--external-data", is_flag=True, default=None, help="Weights in a file next to the model."
)
@options.size_option
@options.fix_option
@source_options
@options.work_dir_option
def optimize(source: str, output: str | None, json_path: str | None, **given: Any) -> None:
    """Run passes over the model SRC; every pass is verified, checked and measured.

    SRC is an ONNX file, a Transformers checkpoint folder, a GGUF file or module:function. Data is
    an .npz, .jsonl or .csv file, an image folder or module:function. The table goes to stderr.
    """
    # What can be wrong in the command line is found before any large library is imported.
    from irtools.targets import find_target

    target = find_target(given["target"], check=False)
    from irtools.measure.effort import Effort

    given["effort"] = Effort.parse(given["effort"])
    if given["no_bench"] and given["timed"] not in (None, "none"):
        raise click.UsageError(f"--no-bench and --bench {given['timed']} exclude each other")
    given["no_bench"] |= given["timed"] == "none"
    pipeline = _pipeline(given["passes"], given["pipeline_file"])
    plans = [_read_plan(path) for path in given["plan_files"]]
    from irtools.driver.destination import Destination, check_writable

    Destination.of(output, source, force=given["force"])
    if json_path not in (None, "-"):
        check_writable(Path(str(json_path)))
    target.check_available()
    result = _run(source, pipeline, plans, target, given)
    if not given["no_check"]:
        from irtools.driver.collapse import reject_collapsed

        reject_collapsed(result)
    _write(result, source, output, json_path, given)


def _pipeline(passes: str | None, file: str | None) -> Pipeline:
    from irtools.passmanager import Pipeline

    if (passes is None) == (file is None):
        raise click.UsageError("give either --passes TEXT or --pipeline FILE; see `irc passes`")
    if passes is not None:
        return Pipeline.parse(passes)
    assert file is not None
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
    source: str, pipeline: Pipeline, plans: list[Plan], target: Any, given: dict[str, Any]
) -> OptimizeResult:
    from irtools.cli.console import outlook
    from irtools.driver.optimize import optimize as run
    from irtools.measure.cache import default_cache

    folder = Path(given["cache_dir"]) if given["cache_dir"] else default_cache()
    with outlook() as shown:
        return run(
            source,
            pipeline,
            _settings(target, given),
            calibration=given["calibrate"],
            evaluation=given["evaluate"],
            plans=plans,
            instruments=tuple(_instruments(given)),
            progress=shown,
            cache=None if given["no_cache"] else folder,
            on_row=shown.row,
            on_outlook=shown.remaining,
        )


def _settings(target: Target, given: dict[str, Any]) -> Settings:
    from irtools.driver.settings import Settings
    from irtools.measure.base import BenchSettings

    bench = BenchSettings(given["batch"], given["sequence"], given["threads"], past=given["past"])
    same = ("metric", "timed", "new_tokens", "max_drop", "drop_slower", "seed", "threads")
    return Settings(
        target=target,
        loading=load_options(given, check=not given["no_check"]),
        data=options.data_settings(given, given["calibrate"], given["evaluate"]),
        bench=None if given["no_bench"] else bench,
        figures=tuple(given["figures"].split(",")) if given["figures"] else (),
        check=not given["no_check"],
        portable=given["portable"],
        effort=given["effort"],
        **{name: given[name] for name in same},
    )


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


def _write(
    result: OptimizeResult,
    source: str,
    output: str | None,
    json_path: str | None,
    given: dict[str, Any],
) -> None:
    from irtools.cli.console import console, say, write_json
    from irtools.data import resolve_sizes
    from irtools.driver.artifact import write_artifact
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
    shown = console()
    for part in report_view(report):
        shown.print(part)
    size = sum(path.stat().st_size for path in files)
    say(f"irc: wrote {', '.join(str(path) for path in files)} ({size_text(size)})")
