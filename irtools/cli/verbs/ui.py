"""`irc ui`: runs, live measurements, trials and jobs in a browser."""

from __future__ import annotations

import click

from irtools.cli.types import FOLDER
from irtools.cli.verb import Verb

__all__ = ["ui"]


@click.command(cls=Verb, epilog="Example: irc ui runs/  # then open the address that it prints")
@click.argument("folder", metavar="DIR", default=".", type=FOLDER)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8686,
    show_default=True,
    metavar="N",
    help="Where to listen; 0: any free port.",
)
def ui(folder: str, port: int) -> None:
    """Show what is below DIR in a browser on this machine (extra `ui`).

    Pages: all reports, two against each other; models measured live, alternating or under load; a
    text, an image or arrays through original and optimized model; jobs that optimize, tune and
    build, with their progress. Listens on 127.0.0.1 alone, with a random token in the address, and
    reads and writes below DIR alone. Models are loaded in child processes, which end with the
    server. Nothing is sent anywhere.
    """
    from irtools.cli.console import say
    from irtools.files import RootFolder
    from irtools.ui import serve

    root = RootFolder.of(folder)
    serve(root, port, lambda address: say(f"irc: open {address} (Ctrl-C ends it)"))
