"""`irc serve-template`: the files that serve a release."""

from __future__ import annotations

from pathlib import Path

import click

from irtools.cli.types import FOLDER
from irtools.cli.verb import Verb

__all__ = ["serve_template"]


@click.command(
    "serve-template",
    cls=Verb,
    epilog="Example: irc serve-template release --for fastapi && cd release-fastapi && uvicorn "
    "app:app",
)
@click.argument("folder", metavar="DIR")
@click.option(
    "--for",
    "server",
    type=click.Choice(["fastapi", "triton", "ovms"]),
    required=True,
    help="fastapi: an app with requirements and a Dockerfile; triton: a model repository of "
    "NVIDIA Triton; ovms: one of OpenVINO Model Server, both with a client.",
)
@click.option(
    "--build",
    "wanted",
    metavar="NAME",
    help="A build of the release, model/pipeline/target, or the beginning of its name. [default: "
    "the only one that will do]",
)
@click.option("--output", "-o", type=FOLDER, help="New folder. [default: DIR-fastapi, ..]")
def serve_template(folder: str, server: str, wanted: str | None, output: str | None) -> None:
    """Write what serves the release DIR: a starting point, to be read and changed.

    An app of FastAPI reads the release where it is. A model repository has a copy of the model.
    """
    from irtools.builds.serving.write import write_serving
    from irtools.cli.console import say

    release = Path(folder)
    named = release if release.name else release.absolute()
    place = Path(output) if output else named.with_name(f"{named.name}-{server}")
    for path in write_serving(release, server, place, wanted):
        click.echo(str(path))
    start = "app.py" if server == "fastapi" else "README.md"
    say(f"irc: {place / start} says how it is started")
