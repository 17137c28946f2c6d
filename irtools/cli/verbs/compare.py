"""`irc compare`: numerics of two models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irtools.cli import options as options
from irtools.cli.source import load_options, source_options
from irtools.cli.types import DATA, SOURCE
from irtools.cli.verb import Verb

if TYPE_CHECKING:
    from rich.table import Table

    from irtools.data import Dataset
    from irtools.measure.divergence import Comparison
    from irtools.metrics import Fidelity

__all__ = ["compare"]


@click.command(cls=Verb)
@click.argument("first", metavar="A", type=SOURCE)
@click.argument("second", metavar="B", type=SOURCE)
@click.option("--layers", is_flag=True, help="Also inner tensors of the same name.")
@click.option("--data", type=DATA, help="Feeds. [default: drawn from the signature of A]")
@options.data_options
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    metavar="N",
    default=16,
    show_default=True,
    help="Most samples to compare on.",
)
@click.option(
    "--threshold",
    type=float,
    default=60.0,
    show_default=True,
    metavar="DB",
    help="SQNR under which two tensors count as different.",
)
@options.target_option
@options.threads_option
@options.seed_option
@options.size_option
@source_options
@options.json_option
@options.work_dir_option
def compare(
    first: str,
    second: str,
    layers: bool,
    data: str | None,
    samples: int,
    threshold: float,
    target: str,
    threads: int | None,
    seed: int,
    json_path: str | None,
    **given: Any,
) -> None:
    """Compare the numbers of model B with those of model A on the same feeds.

    Both run in child processes with the runtime's own optimizations off. With --layers every
    tensor that both models name is compared, and the first one where they diverge is named. B may
    also be what `irc compile` wrote for the target: FILE.ort, FILE.xml or FILE.blob.
    """
    from irtools.cli.console import console, say, say_notes, write_json
    from irtools.data import SyntheticSettings, load_dataset, resolve_sizes, synthesize
    from irtools.driver.contenders import check_used, load_contender
    from irtools.measure.divergence import compare_models
    from irtools.measure.drawable import drawn_for, run_with
    from irtools.report.plain import plain_data
    from irtools.targets import find_target

    settings = options.data_settings(given, data)
    found_target = find_target(target)
    loading = load_options(given)
    check_used((first, second), loading)
    a, b = (load_contender(source, found_target, loading) for source in (first, second))
    say_notes(a, b)
    if isinstance(a, Path):
        raise click.UsageError(f"{first} is compiled: as A give the .onnx file it was made of")
    if isinstance(b, Path) and layers:
        raise click.UsageError(f"{second} is compiled: --layers needs the tensors of two models")

    def run(feeds: Dataset) -> Comparison:
        for note in feeds.notes:
            say(f"irc: note: {note}")
        return compare_models(
            a,
            b,
            feeds,
            found_target,
            layers=layers,
            threshold_db=threshold,
            threads=threads,
        )

    with options.naming_data_option("--data", data):
        if data is not None:
            found = run(load_dataset(data, a, settings).take(samples))
        else:
            say("irc: no --data given: feeds are drawn from the model's signature")
            usual = SyntheticSettings(samples=samples, seed=seed)
            sizes = resolve_sizes(a, given["drawn_sizes"])
            with drawn_for(a, found_target, sizes, threads) as drawn:
                found = run_with(drawn, lambda adapt: run(synthesize(a, adapt(usual))))
                if drawn.note:
                    say(f"irc: note: {drawn.note}")
    if json_path is not None:
        write_json({"format": "irtools-comparison", "version": 1, **plain_data(found)}, json_path)
    if json_path == "-":
        return
    shown = console(stderr=False)
    shown.print(_table(found))
    for line in _lines(found):
        shown.print(line)


def _table(found: Comparison) -> Table:
    from rich.table import Table
    from rich.text import Text

    from irtools.words import printable

    table = Table(pad_edge=False, show_edge=False)
    for heading in ("tensor", "made by", "SQNR", "rel. L2", "max diff", "KL", "agreement"):
        if heading in ("tensor", "made by"):
            table.add_column(heading, overflow="fold")
        else:
            table.add_column(heading, justify="right")

    def add(name: str, producer: str, *figures: str) -> None:
        mark = "  <-- diverge here" if name == found.diverges_at and found.layers else ""
        cells = (printable(name) + mark, printable(producer), *figures)
        table.add_row(*(Text(cell) for cell in cells))

    for tensor in found.layers:
        add(tensor.name, f"{tensor.producer} {tensor.module}", *_noise(tensor.fidelity), "", "")
    for name, figure in found.outputs.items():
        add(name, "(output)", *_noise(figure), *_classes(figure))
    return table


def _noise(figure: Fidelity) -> Iterator[str]:
    from irtools.words import sqnr_text

    yield sqnr_text(figure.sqnr_db)
    yield f"{figure.relative_l2:.2e}"
    yield f"{figure.max_abs:.3g}"


def _classes(figure: Fidelity) -> Iterator[str]:
    yield "" if figure.kl is None else f"{figure.kl:.2e}"
    yield "" if figure.agreement is None else f"{100 * figure.agreement:.2f} %"


def _lines(found: Comparison) -> Iterator[str]:
    from irtools.words import counted, printable

    yield f"{counted(found.samples, 'sample')} of {printable(found.source)}"
    if found.unmatched:
        yield f"without a tensor of that name in B: {counted(found.unmatched, 'float tensor')} of A"
    if found.diverges_at is None:
        yield f"the models agree to at least {found.threshold_db:g} dB everywhere"
    else:
        where = printable(found.diverges_at)
        yield f"the models diverge at {where} (below {found.threshold_db:g} dB)"
    if found.largest_fall is not None and found.largest_fall != found.diverges_at:
        yield f"the SQNR falls most at {printable(found.largest_fall)}"
    bad = sum(figure.nonfinite for figure in found.outputs.values())
    if bad:
        yield f"NaN or infinite in one of the two only: {counted(bad, 'output value')}"
