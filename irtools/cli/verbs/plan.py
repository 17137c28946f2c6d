"""`irc plan`: what a pass would decide."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irtools.cli.planning import planned_for, planning_options
from irtools.cli.types import FILE, SOURCE
from irtools.cli.verb import Verb
from irtools.files import write_text

if TYPE_CHECKING:
    from rich.table import Table

    from irtools.passmanager import Plan

__all__ = ["plan"]


@click.command(
    cls=Verb,
    epilog="Replay it, edited or not: irc optimize SRC --passes TEXT --plan plan.json",
)
@click.argument("source", metavar="SRC", type=SOURCE)
@planning_options
@click.option("--json", "json_path", type=FILE, help="Write the plan; - is stdout.")
def plan(source: str, passes: str, json_path: str | None, **given: Any) -> None:
    """Print what the last pass of a pipeline would decide on SRC, the safest decision first."""
    from irtools.cli.console import console
    from irtools.passmanager import Pipeline

    with planned_for(source, Pipeline.parse(passes), given) as made:
        found = made.plan
    if json_path is not None:
        _write(found, json_path)
    if json_path != "-":
        out = console(stderr=False)
        for note in found.notes:
            out.print(f"note: {note}")
        out.print(_table(found))


def _write(found: Plan, path: str) -> None:
    text = found.to_json()
    if path == "-":
        sys.stdout.write(text)
        return
    write_text(Path(path), text)


def _table(found: Plan) -> Table:
    from rich.table import Table
    from rich.text import Text

    from irtools.words import counted, printable

    table = Table(
        pad_edge=False,
        show_edge=False,
        title=Text(f"{counted(len(found), 'decision')} of {found.pass_text}"),
        title_justify="left",
    )
    cost = f"cost ({found.cost_unit})" if found.cost_unit else "cost"
    gain = f"gain ({found.gain_unit})" if found.gain_unit else "gain"
    for heading in ("#", "subject", "action", cost, gain):
        table.add_column(heading, overflow="fold")
    for index, decision in enumerate(found.decisions, 1):
        cells = (str(index), decision.subject, decision.action)
        figures = (f"{decision.cost:.4g}", f"{decision.gain:.4g}")
        table.add_row(*(Text(printable(cell)) for cell in (*cells, *figures)))
    return table
