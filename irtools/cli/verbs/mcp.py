"""`irc mcp`: tools for agents on stdin and stdout."""

from __future__ import annotations

import click

from irtools.cli.types import FOLDER
from irtools.cli.verb import Verb

__all__ = ["mcp"]


@click.command(cls=Verb, epilog="Example: irc mcp models/  # the command that an agent starts")
@click.argument("folder", metavar="DIR", default=".", type=FOLDER)
def mcp(folder: str) -> None:
    """Serve tools for agents by the Model Context Protocol, on stdin and stdout (extra `mcp`).

    The tools are inspect, passes, optimize as a job in the background, job, cancel, compare and
    report. They read and write below DIR alone, and all jobs end with this process.
    """
    from irtools.background import Jobs
    from irtools.files import RootFolder
    from irtools.mcp import Tools, make_server

    root = RootFolder.of(folder)
    with Jobs(root.path) as jobs:
        make_server(Tools(root, jobs)).run("stdio")
