"""`irc bench`: models against each other, in alternating blocks and on the same samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irtools.cli import options as options
from irtools.cli.source import load_options, source_options
from irtools.cli.types import DATA, METRIC, OUT, SOURCE
from irtools.cli.verb import Verb
from irtools.words import counted

if TYPE_CHECKING:
    from rich.table import Table

    from irtools.measure.base import LatencyResult
    from irtools.measure.contest import ContestResult, Standing, Timer
    from irtools.measure.kit import OtherMachine
    from irtools.measure.timing import Contender

__all__ = ["bench"]


@click.command(
    cls=Verb,
    epilog="Example: irc bench a.onnx@ort-cpu b.xml@openvino-cpu --batch 1,8 --evaluate test.jsonl",
)
@click.argument("sources", metavar="SRC...", type=SOURCE, nargs=-1, required=True)
@options.target_option
@options.batch_option
@options.sequence_option
@options.past_option
@options.threads_option
@options.seed_option
@options.size_option
@click.option(
    "--data", type=DATA, help="Real samples to time on, for inputs that cannot be invented."
)
@click.option(
    "--evaluate",
    type=DATA,
    help="Data to compare outputs on; with labels, the task metric, too.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    metavar="N",
    help="Most samples to evaluate on, evenly spread over the data. [default: all]",
)
@options.data_options
@click.option(
    "--metric", type=METRIC, help="Metric of the models. [default: by the labels of --evaluate]"
)
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
@click.option(
    "--kit",
    type=OUT,
    help="Time nothing; write a zip that times the models on a machine with numpy and onnxruntime "
    "alone: python kit.zip -o result.json; irc report --merge reads that.",
)
@click.option(
    "--on",
    "address",
    metavar="ssh://HOST",
    help="Time on another machine with numpy and onnxruntime: ssh://user@host:port"
    "?python=/opt/venv/bin/python.",
)
@click.option(
    "--live",
    is_flag=True,
    help="Keep all models loaded, ask them block by block until Ctrl-C or --max-seconds, and show "
    "times, CPU and memory meanwhile (extra `ui`).",
)
@click.option(
    "--clients",
    type=click.IntRange(min=1),
    metavar="N",
    help="With --live, under load: 1, 2, 4, .. N clients that each wait for their answer.",
)
@source_options
@options.json_option
@options.work_dir_option
def bench(sources: tuple[str, ...], json_path: str | None, **given: Any) -> None:
    """Compare models with the first of them: time, memory, size, and with --evaluate accuracy.

    A SRC is a model, or what `irc compile` wrote for its target: FILE.ort, FILE.xml or
    FILE.blob. SRC@TARGET runs on that target, any other on --target.

    Times are taken in alternating blocks, one process at a time. Prints median, p90 and p99
    latency, throughput, peak memory of the process, and how many times faster than the first
    model with a 95 % interval. A decoder with a cache is timed twice: on a prompt of --seq tokens,
    and on one token with --past tokens in its cache, in tokens per second; with several --past, a
    curve shows how fast it writes as the text grows.

    With --evaluate all models run on the same samples: SQNR and agreement of the outputs with
    those of the first model, the task metric, and its difference to the first, sample by sample,
    each with a 95 % interval.

    With --kit or --on models are timed on another machine, for which they may be made (isa=).
    """
    from irtools.cli.console import console, say, write_json
    from irtools.cli.curve import decode_curve
    from irtools.cli.live import check_live, live_contest
    from irtools.report.bench import bench_document

    check_live(given)
    timer = _timer(sources, given)
    with options.naming_data_option("--data", given["data"] or given["evaluate"]):
        if given["live"]:
            found = live_contest(_contenders(sources, given, timed_here=True), given)
        else:
            found = _compare(sources, given, timer)
    for note in found.notes:
        say(f"irc: note: {note}")
    if given["kit"] is not None:
        say(f"irc: wrote {given['kit']}; there: python {given['kit']} -o result.json")
        return
    if json_path is not None:
        write_json(bench_document(found, _elsewhere(timer)), json_path)
    shown = console(stderr=json_path == "-")
    shown.print(_table(found))
    for line in decode_curve(found.latency):
        shown.print(line, markup=False, highlight=False)
    if (there := _elsewhere(timer)) is not None:
        say(f"irc: timed on {there.name}: {there.cpu}, {counted(there.threads, 'thread')}")


def _timer(sources: Sequence[str], given: dict[str, Any]) -> Timer | None:
    """Return what times the models elsewhere; None: they are timed here."""
    kit, address = given["kit"], given["address"]
    if kit is not None and address is not None:
        raise click.UsageError("give --kit or --on, not both")
    if kit is not None:
        if given["evaluate"] is not None:
            raise click.UsageError("--kit times models and evaluates nothing: leave out --evaluate")
        from irtools.driver.contenders import split_target
        from irtools.driver.destination import check_writable
        from irtools.driver.elsewhere import KitTimer

        check_writable(Path(kit))
        paths = {name: Path(split_target(text)[0]) for name, text in _names(sources).items()}
        files = {name: path for name, path in paths.items() if path.is_file()}
        return KitTimer(Path(kit), files)
    if address is not None:
        from irtools.driver.elsewhere import RemoteTimer
        from irtools.measure.kit import Host

        return RemoteTimer(Host.parse(address))
    return None


def _elsewhere(timer: Timer | None) -> OtherMachine | None:
    """Return the machine that the times are of; None: this one."""
    timed = getattr(timer, "timed", None)
    return None if timed is None else timed.machine


def _compare(sources: Sequence[str], given: dict[str, Any], timer: Timer | None) -> ContestResult:
    from irtools.cli.console import progress
    from irtools.driver.contenders import (
        choose_contest_metric,
        read_for_contenders,
        read_samples,
    )
    from irtools.measure.base import BenchSettings
    from irtools.measure.contest import Contest, ContestSettings
    from irtools.metrics import data_of_metrics

    wanted, evaluate = given["metric"], given["evaluate"]
    evaluate = data_of_metrics(() if wanted is None else (wanted,), evaluate) or evaluate
    if wanted is not None and evaluate is None:
        raise click.UsageError("--metric is measured on --evaluate, and none is given")
    if given["samples"] is not None and evaluate is None:
        raise click.UsageError("--samples is for --evaluate, and none is given")
    reading = options.data_settings(given, given["data"], evaluate)
    contenders = _contenders(sources, given, timed_here=timer is None)
    data = metric = timed_on = None
    if evaluate is not None:
        data = read_for_contenders(evaluate, contenders, reading)
        metric = choose_contest_metric(wanted, next(iter(data.values())), contenders)
    if given["data"] is not None:
        timed_on = read_samples(given["data"], contenders, reading)
    bench = BenchSettings(
        given["batch"],
        given["sequence"],
        given["threads"],
        rounds=given["rounds"],
        max_seconds=given["max_seconds"],
        past=given["past"],
    )
    settings = ContestSettings(
        bench,
        metric,
        seed=given["seed"],
        threads=given["threads"],
        samples=given["samples"],
        sizes=dict(given["drawn_sizes"]),
    )
    with progress() as shown:
        contest = Contest(contenders, data, settings, shown, timed_on=timed_on, timer=timer)
        return contest.run()


def _contenders(
    sources: Sequence[str], given: dict[str, Any], *, timed_here: bool
) -> dict[str, Contender]:
    from irtools.cli.console import say_notes
    from irtools.driver.contenders import check_used, load_contender, split_target
    from irtools.measure.own_machine import refuse_foreign
    from irtools.measure.timing import Contender
    from irtools.targets import find_target, target_text

    split = {name: split_target(text) for name, text in _names(sources).items()}
    loading = load_options(given)
    check_used([source for source, _ in split.values()], loading)
    targets = {
        name: find_target(given["target"] if own is None else own)
        for name, (_, own) in split.items()
    }
    for target in targets.values():
        if timed_here:
            refuse_foreign(
                target, "the benchmark", "time it there with --kit or --on, or leave out isa="
            )
    loaded = {
        name: load_contender(source, targets[name], loading) for name, (source, _) in split.items()
    }
    say_notes(*loaded.values())
    return {name: Contender(loaded[name], target_text(targets[name])) for name in split}


def _names(sources: Sequence[str]) -> dict[str, str]:
    """Name the contenders by their paths; the same file may run against itself."""
    named: dict[str, str] = {}
    for source in sources:
        name, number = source, 2
        while name in named:
            name, number = f"{source} ({number})", number + 1
        named[name] = source
    return named


def _table(found: ContestResult) -> Table:
    from rich.table import Table
    from rich.text import Text

    from irtools.words import printable

    table = Table(pad_edge=False, show_edge=False)
    evaluated = found.samples > 0
    for heading in _headings(found):
        table.add_column(heading, justify="left" if heading in ("model", "shape") else "right")
    standings = {standing.name: standing for standing in found.standings}
    for number, result in enumerate(found.latency):
        cells = [*_times(result, evaluated), _faster(result, found)]
        if evaluated:
            # Figures of the data are the same at every shape.
            own = number < len(standings)
            cells += _quality(standings[result.name], found) if own else []
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def _headings(found: ContestResult) -> Iterator[str]:
    yield from ("model", "shape", "median", "p90")
    if not found.samples:
        yield from ("p99", "per second" if found.latency[0].phase is None else "tokens/s")
    yield from ("memory", "faster")
    if found.samples:
        yield from ("size", "SQNR", "agreement")
        evaluation = found.standings[0].evaluation
        if evaluation is not None:
            yield from (evaluation.name, "difference")


def _times(r: LatencyResult, evaluated: bool) -> Iterator[str]:
    from irtools.words import size_text

    yield from (r.name, r.shape, f"{r.median_ms:.2f} ms", f"{r.p90_ms:.2f} ms")
    if not evaluated:
        rate = r.throughput if r.tokens_per_second is None else r.tokens_per_second
        yield from (f"{r.p99_ms:.2f} ms", f"{rate:.1f}")
    yield size_text(r.peak_bytes)


def _quality(standing: Standing, found: ContestResult) -> Iterator[str]:
    from irtools.words import size_text, sqnr_text

    yield size_text(standing.file_bytes)
    if standing is found.standings[0] or standing.fidelity is None:
        yield from ("", "")
    else:
        agreement = standing.fidelity.agreement
        yield sqnr_text(standing.fidelity.sqnr_db)
        yield "" if agreement is None else f"{agreement:.2%}"
    if standing.evaluation is None:
        return
    value = standing.evaluation
    yield f"{value.value:.4f} [{value.low:.4f}, {value.high:.4f}]"
    if standing.difference is None:
        yield ""
        return
    gap = standing.difference
    shown = f"{gap.value:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"
    yield shown if gap.is_significant or gap.value == 0 else f"{shown} within noise"


def _faster(result: LatencyResult, found: ContestResult) -> str:
    ratio = result.speedup
    if ratio is None:
        # Without one a live measurement ended before it had three blocks of both.
        return "1" if result.name == found.standings[0].name else ""
    shown = f"{ratio.value:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]"
    return shown if ratio.is_significant else f"{shown} within noise"
