"""`irc build`: what `irc.toml` says, as a release."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irtools.cli.types import FILE, FOLDER
from irtools.cli.verb import Verb

if TYPE_CHECKING:
    from irtools.builds.build import BuildResult
    from irtools.builds.config import Config
    from irtools.files import Store

__all__ = ["build"]


@click.command(
    cls=Verb,
    epilog="Example: irc init model.onnx && irc build && irc verify release/",
)
@click.option(
    "--config",
    "-c",
    "config_file",
    type=FILE,
    default="irc.toml",
    show_default=True,
    help="What to build.",
)
@click.option("--output", "-o", type=FOLDER, help="The release. [default: as irc.toml says]")
@click.option(
    "--cache-dir",
    metavar="DIR",
    help="Where builds, outputs and scores are kept between runs; `irc cache` shows it. "
    "[default: irtools in $XDG_CACHE_HOME or ~/.cache]",
)
@click.option("--no-cache", is_flag=True, help="Make everything that the release lacks.")
@click.option("--locked", is_flag=True, help="Fail where inputs or versions differ from irc.lock.")
@click.option(
    "--check",
    is_flag=True,
    help="Make every build twice without the cache and compare the bytes; nothing is released.",
)
@click.option("--sign", "key", type=FILE, help="Private key, in PEM, to sign the release with.")
@click.option("--schema", is_flag=True, help="Print the JSON schema of irc.toml.")
@click.option("--force", "-f", is_flag=True, help="Replace a folder that holds other files.")
def build(config_file: str, schema: bool, **given: Any) -> None:
    """Build the release that irc.toml describes: every model, pipeline and target.

    What did not change is not made again: neither what the release holds, nor what is in the
    cache. The release appears whole or not at all. irc.lock says what went in and what came out.
    """
    if schema:
        from irtools.builds.tables import config_schema
        from irtools.files import json_text

        sys.stdout.write(json_text(config_schema()))
        return
    from irtools.builds.config import read_config

    config = read_config(Path(config_file))
    if given["key"] is not None:
        from irtools.builds.signing import check_key

        check_key(Path(given["key"]))
    if given["check"]:
        _check(config)
        return
    _tell(_build(config, given))


def _check(config: Config) -> None:
    from irtools.builds.repeat import repeat_builds
    from irtools.builds.watch import Watch
    from irtools.cli.console import say
    from irtools.errors import CheckError
    from irtools.words import counted

    different: list[str] = []
    for one in repeat_builds(config, Watch(lambda line: say(f"irc: {line}"))):
        different += (f"{one.name}/{line}" for line in one.differences)
        lock = ", and as irc.lock says" if one.locked else ""
        same = f"the same bytes twice{lock} ({counted(one.files, 'file')})"
        say(f"irc: {one.name}: {'; '.join(one.differences) or same}")
    if different:
        raise CheckError(
            f"the same inputs gave other bytes: {different[0]}"
            + f", and {len(different) - 1} more" * (len(different) > 1)
        )


def _build(config: Config, given: dict[str, Any]) -> BuildResult:
    from irtools.builds.build import BuildSettings
    from irtools.builds.build import build as run
    from irtools.builds.watch import Watch
    from irtools.cli.console import outlook, say

    settings = BuildSettings(
        folder=None if given["output"] is None else Path(given["output"]),
        store=_store(given),
        locked=given["locked"],
        force=given["force"],
        sign=_signer(given["key"]),
    )
    with outlook() as shown:
        return run(config, settings, Watch(lambda line: say(f"irc: {line}"), shown, shown.row))


def _signer(key: str | None) -> Callable[[Path], None] | None:
    if key is None:
        return None
    from irtools.builds.signing import sign_release

    return partial(sign_release, key=Path(key))


def _store(given: dict[str, Any]) -> Store | None:
    from irtools.cli.console import say
    from irtools.files import Store
    from irtools.measure.cache import default_cache

    if given["no_cache"]:
        return None
    folder = Path(given["cache_dir"]) if given["cache_dir"] else default_cache()
    return Store(folder, warn=lambda line: say(f"irc: note: {line}"))


def _tell(result: BuildResult) -> None:
    from rich.table import Table
    from rich.text import Text

    from irtools.builds.summary import summary_rows
    from irtools.cli.console import console, say
    from irtools.words import counted, printable, size_text

    headings, rows = summary_rows(result.manifest.builds)
    table = Table(pad_edge=False, show_edge=False)
    for index, heading in enumerate((*headings, "")):
        table.add_column(heading, justify="right" if 0 < index < len(headings) else "left")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in (*row, result.origins[row[0]])))
    console().print(table)
    made = list(result.origins.values())
    size = sum(file.bytes for file in result.manifest.files.values())
    counts = [f"{made.count(o)} {o}" for o in ("unchanged", "from the cache", "built") if o in made]
    say(
        f"irc: {result.folder}: {counted(len(made), 'build')} ({', '.join(counts)}), "
        f"{counted(len(result.manifest.files), 'file')}, {size_text(size)}"
    )
