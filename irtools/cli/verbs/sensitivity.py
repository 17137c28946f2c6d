"""`irc sensitivity`: which layers suffer most from a pass."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from irtools.cli import options as options
from irtools.cli.planning import planned_for, planning_arguments, planning_options
from irtools.cli.types import SOURCE
from irtools.cli.verb import Verb

if TYPE_CHECKING:
    from rich.table import Table

    from irtools.driver.sensitivity import Elsewhere, Sensitivity, SensitivityReport
    from irtools.passmanager import Pipeline

__all__ = ["sensitivity"]


@click.command(
    cls=Verb,
    epilog="Example: irc sensitivity model.onnx --passes cleanup,fuse,int8 --calibrate train.jsonl "
    "--measure 10",
)
@click.argument("source", metavar="SRC", type=SOURCE)
@planning_options
@click.option(
    "--measure",
    type=click.IntRange(min=0),
    metavar="N",
    default=0,
    show_default=True,
    help="Apply each of the N decisions that seem to cost most alone, and compare the outputs on "
    "the calibration data.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    metavar="N",
    default=20,
    show_default=True,
    help="Rows to print; --json has all of them.",
)
@options.on_option
@options.json_option
def sensitivity(
    source: str,
    passes: str,
    measure: int,
    top: int,
    on: str | None,
    json_path: str | None,
    **given: Any,
) -> None:
    """Rank what the last pass of a pipeline would do to SRC by what it costs, the worst first.

    The predicted loss is that of each decision's own tensors; --measure finds what the outputs of
    the model lose. Where few decisions carry half of the predicted loss, the option that leaves
    them out is printed.
    """
    from irtools.cli.console import console, write_json
    from irtools.driver.sensitivity import rank_decisions
    from irtools.passmanager import Pipeline
    from irtools.report.plain import plain_data

    pipeline = Pipeline.parse(passes)
    if on is not None and not measure:
        raise click.UsageError("--on spreads what --measure N measures: give a number of decisions")
    elsewhere = None if on is None else _elsewhere(on, source, pipeline, given)
    with planned_for(source, pipeline, given) as made:
        found = rank_decisions(made, measure, elsewhere)
    if json_path is not None:
        write_json({"format": "irtools-sensitivity", "version": 1, **plain_data(found)}, json_path)
    if json_path == "-":
        return
    out = console(stderr=False)
    for note in found.notes:
        out.print(f"note: {note}")
    out.print(_table(found, top))
    for line in _lines(found, top, source, pipeline):
        out.print(line, soft_wrap=True)


def _elsewhere(on: str, source: str, pipeline: Pipeline, given: dict[str, Any]) -> Elsewhere:
    """Return workers with what they need to make the same plan."""
    from irtools.cli.console import say
    from irtools.driver.sensitivity import Elsewhere
    from irtools.executors import open_executor, packed

    executor = open_executor(on)
    arguments = planning_arguments(given)
    for name, value in (("model", source), ("calibration", arguments["calibration"])):
        arguments[name] = packed(value, shares_files=executor.shares_files)
    payload = {**arguments, "pipeline": str(pipeline)}
    return Elsewhere(executor, payload, lambda line: say(f"irc: {line}"))


def _table(found: SensitivityReport, top: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    from irtools.words import counted, printable

    table = Table(
        pad_edge=False,
        show_edge=False,
        title=Text(f"{counted(len(found.rows), 'decision')} of {found.pass_text}"),
        title_justify="left",
    )
    table.add_column("#", justify="right")
    for heading in ("subject", "action"):
        table.add_column(heading, overflow="fold")
    for heading in ("predicted", "share"):
        table.add_column(heading, justify="right")
    if found.samples:
        table.add_column("measured alone", justify="right")
    for number, row in enumerate(found.rows[:top], 1):
        cells = (str(number), row.subject, row.action, *_figures(row, bool(found.samples)))
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def _figures(row: Sensitivity, measured: bool) -> Iterator[str]:
    yield f"{row.cost:.3g}"
    yield f"{100 * row.share:.1f} %"
    if measured:
        close = row.measured
        yield "" if close is None else _closeness(close.sqnr_db, close.agreement)


def _closeness(sqnr_db: float, agreement: float | None) -> str:
    from irtools.words import sqnr_text

    shown = sqnr_text(sqnr_db)
    return shown if agreement is None else f"{shown}, {100 * agreement:.1f} %"


def _lines(found: SensitivityReport, top: int, source: str, pipeline: Pipeline) -> Iterator[str]:
    from irtools.passmanager import pass_text
    from irtools.words import counted

    if len(found.rows) > top:
        left = counted(len(found.rows) - top, "more row")
        yield f"{left}: --top {len(found.rows)} or --json FILE"
    if found.cost_unit:
        yield f"predicted: {found.cost_unit}; share: of the sum of all"
    if found.samples:
        samples = counted(found.samples, "sample")
        yield f"measured alone: SQNR and agreement of the outputs, {samples} of {found.source}"
    if not found.exclude:
        return
    share = sum(row.share for row in found.rows if row.subject in found.exclude)
    yield (
        f"{counted(len(found.exclude), 'decision')} of {len(found.rows)} carry "
        f"{100 * share:.0f} % of the predicted loss; without them "
        f"{100 * found.kept_gain:.0f} % of the gain ({found.gain_unit}) is left:"
    )
    first = [pass_text(one) for one in pipeline.passes[:-1]]
    text = ",".join((*first, found.advice))
    yield f"  irc optimize {shlex.quote(source)} --passes {shlex.quote(text)}"
