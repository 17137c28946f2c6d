"""`irc new-pass`: a package with a pass of one's own to start from."""

from __future__ import annotations

from pathlib import Path

import click

from irtools.cli.console import say
from irtools.cli.types import FOLDER
from irtools.cli.verb import Verb

__all__ = ["new_pass"]


@click.command("new-pass", cls=Verb, epilog="Example: irc new-pass drop-dropout -o drop-dropout")
@click.argument("name", metavar="NAME")
@click.option(
    "-o", "--output", type=FOLDER, metavar="DIR", help="New folder; ./NAME where it is not given."
)
def new_pass(name: str, output: str | None) -> None:
    """Write a package with a working pass, its test and its entry point.

    NAME is what the pass will be called in --passes: words joined by hyphens. Install the package
    with pip, and irc finds the pass.
    """
    from irtools.testing import write_starter

    folder = Path(output or name)
    for path in write_starter(name, folder):
        click.echo(str(path))
    say(f"irc: next: pip install -e '{folder}[test]', then pytest {folder}")
