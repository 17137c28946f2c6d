"""`irc verify`: whether a release is what was built, and computes what it computed then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from irtools.cli.types import FILE
from irtools.cli.verb import Verb

__all__ = ["verify"]


@click.command(cls=Verb, epilog="Example: irc verify release/ --key release.pub")
@click.argument("folder", metavar="DIR")
@click.option("--key", type=FILE, help="Public key, in PEM, that the signature must hold for.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def verify(folder: str, key: str | None, as_json: bool) -> None:
    """Check the release DIR: hashes of its files, its signature, and its numbers on this machine.

    The release holds inputs, and outputs that were computed when it was built. Ends with 5 where
    something does not hold.
    """
    from irtools.builds.signing import check_key
    from irtools.builds.verify import verify_release
    from irtools.cli.console import progress, write_json
    from irtools.errors import CheckError
    from irtools.report.plain import plain_data
    from irtools.words import counted

    if key is not None:
        check_key(Path(key))
    with progress() as shown:
        found = list(verify_release(Path(folder), None if key is None else Path(key), shown))
    if as_json:
        document = {"format": "irtools-verification", "version": 1}
        write_json({**document, "findings": plain_data(found)}, "-")
    else:
        _show(found)
    failed = [one for one in found if one.outcome == "failed"]
    if failed:
        raise CheckError(
            f"{folder}: {counted(len(failed), 'check')} of {len(found)} failed: "
            f"{failed[0].what}: {failed[0].text}"
        )


def _show(found: Any) -> None:
    from rich.table import Table
    from rich.text import Text

    from irtools.cli.console import console
    from irtools.words import printable

    table = Table(pad_edge=False, show_edge=False)
    for heading in ("check", "outcome", ""):
        table.add_column(heading)
    for one in found:
        table.add_row(*(Text(printable(cell)) for cell in (one.what, one.outcome, one.text)))
    console(stderr=False).print(table)
