"""`irc build`: what `irc.toml` says, as a release."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irtools.cli import options as options
from irtools.cli.running import open_store
from irtools.cli.types import FILE, FOLDER, OUT
from irtools.cli.verb import Verb

if TYPE_CHECKING:
    from irtools.builds.build import BuildResult, BuildSettings
    from irtools.builds.config import Config
    from irtools.builds.gate import Comparison
    from irtools.builds.records import Manifest
    from irtools.builds.watch import Watch
    from irtools.files import Store
    from irtools.trackers import Tracker

__all__ = ["build"]


@click.command(
    cls=Verb,
    epilog="Example: irc init model.onnx && irc build && irc verify release/",
)
@options.config_option("What to build.")
@click.option("--output", "-o", type=FOLDER, help="The release. [default: as irc.toml says]")
@click.option(
    "--cache-dir",
    metavar="DIR",
    help="Where builds, results of passes and scores are kept between runs; see `irc cache`. "
    "[default: irtools in $XDG_CACHE_HOME or ~/.cache]",
)
@click.option("--no-cache", is_flag=True, help="Make everything that the release lacks.")
@click.option("--locked", is_flag=True, help="Fail where inputs or versions differ from irc.lock.")
@click.option(
    "--baseline",
    type=FOLDER,
    help="An older release: both are measured here, in turn, and what got worse beyond noise ends "
    "the build with 5, before anything is released.",
)
@click.option("--junit", type=OUT, help="Write what was built and compared as JUnit XML.")
@click.option("--markdown", type=OUT, help="Write it as Markdown.")
@click.option(
    "--dry-run", is_flag=True, help="Say what would be built, and why; nothing is made or written."
)
@click.option(
    "--check",
    is_flag=True,
    help="Make every build twice without the cache and compare the bytes; nothing is released.",
)
@click.option("--sign", "key", type=FILE, help="Private key, in PEM, to sign the release with.")
@options.track_option
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

        check_key(Path(given["key"]), signs=True)
    if given["check"]:
        _check(config)
        return
    if given["dry_run"]:
        _plan(config, given)
        return
    _run(config, given)


def _run(config: Config, given: dict[str, Any]) -> None:
    """Build, and tell people and CI systems how it went, also where it failed."""
    from irtools.cli.console import say
    from irtools.driver.destination import check_writable
    from irtools.errors import FileError

    for view in ("junit", "markdown"):
        if given[view] is not None:
            check_writable(Path(given[view]))
    found: list[Comparison] = []
    try:
        result = _build(config, given, found)
    except BaseException as error:
        notes = getattr(error, "__notes__", ())
        failure = "; ".join([str(error) or type(error).__name__, *notes])
        try:
            _show_comparisons(found, None, failure, given)
        except FileError as unwritten:  # Why nothing was built is what its caller must see.
            say(f"irc: {unwritten}")
        raise
    _show_comparisons(found, result, "", given)
    _tell(result)
    if found:
        say(f"irc: nothing is worse than in {given['baseline']}")


def _show_comparisons(
    found: Sequence[Comparison], result: BuildResult | None, failure: str, given: dict[str, Any]
) -> None:
    from irtools.builds.views import HEADINGS, cells_of, gate_junit, gate_markdown
    from irtools.cli.console import say
    from irtools.files import write_text

    if found:
        _show(HEADINGS, cells_of(found))

    if given["junit"] is not None:
        write_text(Path(given["junit"]), gate_junit(result, found, failure))
    text = gate_markdown(result, found, failure)
    if given["markdown"] is not None:
        write_text(Path(given["markdown"]), text)
    # GitHub shows what is appended to this file on the page of the job.
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            say(f"irc: the summary of the job was not written: {summary}: {error.strerror}")


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


def _plan(config: Config, given: dict[str, Any]) -> None:
    from irtools.builds.plan import plan_builds
    from irtools.builds.watch import Watch
    from irtools.cli.console import say

    found = plan_builds(config, _settings(given), Watch(lambda line: say(f"irc: {line}")))
    _show(("build", "state"), list(found.items()))


def _build(config: Config, given: dict[str, Any], found: list[Comparison]) -> BuildResult:
    from irtools.builds.build import build as run
    from irtools.builds.watch import Watch
    from irtools.cli.console import outlook, say

    with outlook() as shown:
        watch = Watch(lambda line: say(f"irc: {line}"), shown, shown.row, shown.tried)
        gate = _gate(config, given["baseline"], watch, found)
        settings = replace(_settings(given), gate=gate, trackers=_trackers(config, given))
        return run(config, settings, watch)


def _trackers(config: Config, given: dict[str, Any]) -> tuple[Tracker, ...]:
    from irtools.errors import IrtoolsError
    from irtools.trackers import find_trackers

    try:
        named = find_trackers(config.tracking.to)
    except IrtoolsError as error:
        raise config.error(("tracking", "to"), str(error)) from error
    return (
        *named,
        *find_trackers([one for one in given["track"] if one not in config.tracking.to]),
    )


def _gate(
    config: Config, baseline: str | None, watch: Watch, found: list[Comparison]
) -> Callable[[Path, Manifest], None] | None:
    if baseline is None:
        return None
    from irtools.builds.gate import compare_releases, read_baseline, regressions
    from irtools.errors import CheckError

    folder = Path(baseline)
    old = read_baseline(folder, config)

    def gate(place: Path, new: Manifest) -> None:
        found.extend(compare_releases(config, place, new, folder, old, watch))
        if worse := regressions(found):
            raise CheckError(f"worse than {folder}: {worse}; nothing was released")

    return gate


def _settings(given: dict[str, Any]) -> BuildSettings:
    from irtools.builds.build import BuildSettings

    return BuildSettings(
        folder=None if given["output"] is None else Path(given["output"]),
        store=_store(given),
        locked=given["locked"],
        force=given["force"],
        sign=_signer(given["key"]),
    )


def _signer(key: str | None) -> Callable[[Path], None] | None:
    if key is None:
        return None
    from irtools.builds.signing import sign_release

    return partial(sign_release, key=Path(key))


def _store(given: dict[str, Any]) -> Store | None:
    return None if given["no_cache"] else open_store(given["cache_dir"])


def _tell(result: BuildResult) -> None:
    from irtools.builds.summary import summary_rows
    from irtools.cli.console import say
    from irtools.words import counted, size_text

    headings, rows = summary_rows(result.manifest.builds)
    _show((*headings, ""), [(*row, result.origins[row[0]]) for row in rows])
    made = list(result.origins.values())
    size = sum(file.bytes for file in result.manifest.files.values())
    counts = [f"{made.count(o)} {o}" for o in ("unchanged", "from the cache", "built") if o in made]
    say(
        f"irc: {result.folder}: {counted(len(made), 'build')} ({', '.join(counts)}), "
        f"{counted(len(result.manifest.files), 'file')}, {size_text(size)}"
    )


def _show(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from irtools.cli.console import console
    from irtools.words import printable

    table = Table(pad_edge=False, show_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if 0 < index < len(headings) - 1 else "left")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console().print(table)
