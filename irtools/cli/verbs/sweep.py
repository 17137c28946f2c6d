"""`irc sweep`: the same for many models, with one table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from irtools.cli import options
from irtools.cli.running import (
    cache_folder,
    searching_options,
    searching_targets,
    settings_of,
)
from irtools.cli.types import FOLDER, PIPELINE, SOURCE
from irtools.cli.verb import Verb

__all__ = ["sweep"]


@click.command(
    cls=Verb,
    epilog="Example: irc sweep models/*.onnx --passes cleanup,fuse,int8 --evaluate dev.npz "
    "--on ray://head:10001 -o swept/",
)
@click.argument("sources", metavar="SRC...", type=SOURCE, nargs=-1, required=True)
@click.option(
    "--passes",
    "-p",
    type=PIPELINE,
    help="Pipeline for all models; none: they are only measured and written for the target. "
    "[default: found for each model, for the goals; without goals what is safe and faster]",
)
@options.target_option
@searching_options
@click.option("--no-bench", is_flag=True, help="Do not time the models: they run side by side.")
@click.option(
    "--output", "-o", type=FOLDER, required=True, help="A folder with one for each model."
)
@click.option("--force", "-f", is_flag=True, help="Make models again that are there already.")
@click.option("--portable", is_flag=True, help="Standard operators only in what is timed.")
def sweep(
    sources: tuple[str, ...],
    passes: str | None,
    on: str | None,
    output: str,
    json_path: str | None,
    **given: Any,
) -> None:
    """Optimize every model SRC in the same way, and print one table.

    Each gets a folder with what the target loads and report.json; sweep.json lists all. A model
    that fails does not stop the others, and the same command goes on where it was stopped. With
    --on they are made on many machines; times are taken on those that are like the target.
    """
    from irtools.driver.destination import check_writable
    from irtools.passmanager import Pipeline

    if passes not in (None, "none"):
        Pipeline.parse(str(passes))
    [target] = searching_targets(given, (given["target"],), on)
    check_writable(Path(output.rstrip("/")).absolute())
    if json_path not in (None, "-"):
        check_writable(Path(str(json_path)))
    from irtools.cli.console import say, write_json
    from irtools.executors import open_executor
    from irtools.sweeps import Entry, Request
    from irtools.sweeps import sweep as run

    def tell(entry: Entry) -> None:
        say(f"irc: {entry.name}: {entry.outcome}{': ' + entry.error if entry.error else ''}")

    data = {"calibration": "calibrate", "evaluation": "evaluate", "holdout": "holdout"}
    found = run(
        sources,
        Request(
            passes,
            settings_of(target, given),
            {name: given[option] for name, option in data.items()},
            cache_folder(given),
            given["force"],
        ),
        Path(output),
        None if on is None else open_executor(on),
        on_entry=tell,
        on_note=lambda line: say(f"irc: {line}"),
    )
    if json_path is not None:
        write_json(found.to_dict(), json_path)
    if json_path != "-":
        _print(found)
    say(f"irc: wrote {output}")
    if found.failed:
        say(f"irc: {len(found.failed)} of {len(found.models)} models failed")
        click.get_current_context().exit(found.failed[0].code or 1)


def _print(found: Any) -> None:
    from rich.table import Table
    from rich.text import Text

    from irtools.cli.console import console
    from irtools.sweeps import sweep_cells

    cells = sweep_cells(found)
    table = Table(pad_edge=False, show_edge=False)
    for heading in cells.headings:
        table.add_column(heading, overflow="fold", no_wrap=heading not in ("pipeline", "why"))
    for row in cells.rows:
        table.add_row(*map(Text, row))
    console().print(table)
