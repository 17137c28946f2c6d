"""`irc bench`: models against each other, in turns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from irtools.cli import options as options
from irtools.cli.source import load_options, source_options
from irtools.cli.types import DATA, SOURCE
from irtools.cli.verb import Verb

if TYPE_CHECKING:
    from rich.table import Table

    from irtools.measure import LatencyResult

__all__ = ["bench"]


@click.command(
    cls=Verb,
    epilog="Example: irc bench a.onnx b.onnx --batch 1,8 --seq 16,128 --json -",
)
@click.argument("sources", metavar="SRC...", type=SOURCE, nargs=-1, required=True)
@options.target_option
@options.batch_option
@options.sequence_option
@options.past_option
@options.threads_option
@options.seed_option
@options.size_option
@click.option("--data", type=DATA, help="Real samples, for inputs that cannot be invented.")
@options.data_options
@click.option(
    "--rounds",
    type=click.IntRange(min=3),
    metavar="N",
    default=5,
    show_default=True,
    help="Rounds of alternating blocks; more are run while the interval is wide.",
)
@click.option(
    "--max-seconds",
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    default=120.0,
    show_default=True,
    help="Bound on the whole comparison.",
)
@source_options
@options.json_option
@options.work_dir_option
def bench(sources: tuple[str, ...], json_path: str | None, **given: Any) -> None:
    """Time models against the first of them, in alternating blocks, one process at a time.

    A SRC is a model, or what `irc compile` wrote for the target: FILE.ort or FILE.xml.

    Prints median, p90 and p99 latency, throughput, peak memory of the process, and how many times
    faster than the first model with a 95 % interval. A decoder with a cache is timed twice: on a
    prompt of --seq tokens, and on one token with --past tokens in its cache, in tokens per second.
    """
    from irtools.cli.console import console, write_json
    from irtools.measure.machine import machine, versions
    from irtools.report.plain import plain_data

    with options.naming_data_option("--data", given["data"]):
        results = _measure(sources, given)
    if json_path is not None:
        document = {
            "format": "irtools-bench",
            "version": 2,
            "target": given["target"],
            "machine": plain_data(machine()),
            "versions": dict(versions()),
            "results": [plain_data(r) for r in results],
        }
        write_json(document, json_path)
    console(stderr=json_path == "-").print(_table(results))


def _measure(sources: Sequence[str], given: dict[str, Any]) -> list[LatencyResult]:
    from irtools.cli.console import progress, say, say_notes
    from irtools.data import load_dataset
    from irtools.data.axes import with_sizes
    from irtools.driver.compiled import CompiledFile, check_used, load_contender
    from irtools.measure import BenchSettings, Contender, measure, refuse_foreign, target_text
    from irtools.measure.drawable import drawn_for, run_with
    from irtools.measure.shapes import bench_feeds, branches, sample_feeds
    from irtools.targets import find_target

    reading = options.data_settings(given, given["data"])
    target = find_target(given["target"])
    refuse_foreign(target, "the benchmark")
    text = target_text(target)
    settings = BenchSettings(
        given["batch"],
        given["sequence"],
        given["threads"],
        rounds=given["rounds"],
        max_seconds=given["max_seconds"],
        past=given["past"],
    )
    loading = load_options(given)
    check_used(sources, loading)
    found = {n: load_contender(path, target, loading) for n, path in _names(sources).items()}
    models = {n: f.stub if isinstance(f, CompiledFile) else f for n, f in found.items()}
    say_notes(*found.values())
    _check_same_inputs(models)
    # A model knows more of its inputs (ids, lengths) than a file of a runtime tells.
    whole = [m for n, m in models.items() if not isinstance(found[n], CompiledFile)]
    first = (whole or list(models.values()))[0]
    data = None if given["data"] is None else load_dataset(given["data"], first, reading)
    contenders = {
        name: Contender(f.path if isinstance(f, CompiledFile) else f, text)
        for name, f in found.items()
    }

    def run(adapt: Any) -> list[LatencyResult]:
        feeds: Any = bench_feeds(first, settings, data, given["seed"], adapt)
        for note in (
            *_shortened(settings.sequence, feeds, "sequence"),
            *_shortened(settings.past or settings.sequence, feeds, "past"),
        ):
            say(f"irc: note: {note}")
        if data is not None and any(branches(model) for model in models.values()):
            feeds = sample_feeds(data, settings)
        with progress() as shown:
            return measure(contenders, feeds, settings, shown)

    sizes = with_sizes(first, given["drawn_sizes"])
    with drawn_for(first, target, sizes, given["threads"]) as drawn:
        results = run_with(drawn, run) if whole else run(drawn.adapt)
        if drawn.note:
            say(f"irc: note: {drawn.note}")
        return results


def _shortened(wanted: Sequence[int], labels: Iterable[str], what: str) -> Iterator[str]:
    """Say which lengths could not be had.

    Args:
        wanted: Lengths asked for.
        labels: Shapes that there are feeds for.
        what: `sequence` or `past`.
    """
    lengths = {
        part.removeprefix(f"{what}=")
        for label in labels
        for part in label.split()
        if part.startswith(f"{what}=")
    }
    lost = [str(length) for length in wanted if str(length) not in lengths]
    if lengths and lost:
        yield (
            f"timed at {what}={','.join(sorted(lengths, key=int))}, not {','.join(lost)}: "
            "the model fixes the length, or holds no more positions"
        )


def _names(sources: Sequence[str]) -> dict[str, str]:
    """Name the contenders by their paths; the same file may run against itself."""
    named: dict[str, str] = {}
    for source in sources:
        name, number = source, 2
        while name in named:
            name, number = f"{source} ({number})", number + 1
        named[name] = source
    return named


def _check_same_inputs(models: Any) -> None:
    from irtools.errors import UsageError

    (first, model), *others = models.items()
    wanted = {(i.name, i.dtype) for i in model.interface.required}
    for name, other in others:
        found = {(i.name, i.dtype) for i in other.interface.required}
        if found != wanted:
            raise UsageError(
                f"{name} takes {_inputs(found)} and {first} takes {_inputs(wanted)}: only models "
                "with the same inputs can be timed against each other"
            )


def _inputs(infos: set[tuple[str, str]]) -> str:
    return ", ".join(f"{name}: {dtype}" for name, dtype in sorted(infos)) or "nothing"


def _table(results: Sequence[LatencyResult]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from irtools.report import size_text
    from irtools.words import printable

    table = Table(pad_edge=False, show_edge=False)
    rate = "per second" if results[0].phase is None else "tokens/s"
    for heading in ("model", "shape", "median", "p90", "p99", rate, "memory", "faster"):
        table.add_column(heading, justify="left" if heading in ("model", "shape") else "right")
    for r in results:
        cells = (
            r.name,
            r.shape,
            f"{r.median_ms:.2f} ms",
            f"{r.p90_ms:.2f} ms",
            f"{r.p99_ms:.2f} ms",
            f"{r.throughput if r.tokens_per_second is None else r.tokens_per_second:.1f}",
            size_text(r.peak_bytes),
            _faster(r),
        )
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def _faster(result: LatencyResult) -> str:
    ratio = result.speedup
    if ratio is None:
        return "1"
    shown = f"{ratio.value:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]"
    return shown if ratio.is_significant else f"{shown} within noise"
