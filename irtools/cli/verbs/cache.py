"""`irc cache`: what is kept between runs."""

from __future__ import annotations

import sys
from typing import Any

import click

from irtools.cli.running import open_store
from irtools.cli.verb import Verb

__all__ = ["cache"]


class _Bytes(click.ParamType):
    """A size: `500MB` or `2 GB`."""

    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        from irtools.errors import OptionError
        from irtools.goals import read_size

        try:
            return read_size(str(value), "the size")
        except OptionError as error:
            self.fail(str(error), param, ctx)


@click.command(cls=Verb, epilog="Example: irc cache --trim 2GB")
@click.option(
    "--cache-dir",
    metavar="DIR",
    help="The cache to look at. [default: irtools in $XDG_CACHE_HOME or ~/.cache]",
)
@click.option(
    "--check", is_flag=True, help="Compare every entry with its hashes, and remove damaged ones."
)
@click.option(
    "--trim",
    type=_Bytes(),
    metavar="SIZE",
    help="Remove what was not used for longest until the rest takes SIZE (500MB, 2GB).",
)
@click.option("--clear", is_flag=True, help="Remove all of it, other versions' entries as well.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def cache(cache_dir: str | None, check: bool, trim: int | None, clear: bool, as_json: bool) -> None:
    """Show what builds and runs have kept: builds, results of passes, calibration, outputs, scores,
    and tables that passes decide by.

    It is only ever a copy: whatever is removed is made again when it is needed.
    """
    from irtools.cli.console import say, write_json
    from irtools.words import counted, size_text

    store = open_store(cache_dir)
    if check:
        damaged = store.check()
        say(f"irc: {counted(damaged, 'damaged entry', 'damaged entries')} removed")
    if trim is not None or clear:
        freed = store.trim(0 if clear else trim or 0)
        freed += store.remove_others() if clear else 0
        say(f"irc: freed {size_text(freed)}")
    sizes = store.sizes()
    if as_json:
        kinds = {s.kind: {"entries": s.entries, "bytes": s.bytes} for s in sizes}
        write_json({"folder": str(store.folder), "limit": store.limit, "kinds": kinds}, "-")
        return
    total = sum(s.bytes for s in sizes)
    sys.stdout.write(f"{store.folder}: {size_text(total)} of at most {size_text(store.limit)}\n")
    for s in sizes:
        entries = counted(s.entries, "entry", "entries")
        sys.stdout.write(f"  {s.kind:<8} {entries:>14} {size_text(s.bytes):>10}\n")
    for other in store.others():
        sys.stdout.write(f"  {other.name}: of another version of irtools; --clear removes it\n")
