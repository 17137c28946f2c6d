"""`irc init`: an `irc.toml` to start from."""

from __future__ import annotations

from pathlib import Path

import click

from irtools.cli import options as options
from irtools.cli.types import PIPELINE, SOURCE
from irtools.cli.verb import Verb

__all__ = ["init"]


@click.command(cls=Verb, epilog="Example: irc init model.onnx --evaluate test.npz && irc build")
@click.argument("source", metavar="SRC", type=SOURCE)
@click.option(
    "--passes",
    "-p",
    type=PIPELINE,
    default="O3",
    show_default=True,
    help="Pipeline: name:key=value:key=value, joined by commas, which `irc passes` lists; "
    "auto: those that a search finds.",
)
@options.target_option
@options.calibrate_option
@options.evaluate_option
@options.config_option("The file to write.")
@click.option("--force", "-f", is_flag=True, help="Replace what exists.")
def init(
    source: str,
    passes: str,
    target: str,
    calibrate: str | None,
    evaluate: str | None,
    config_file: str,
    force: bool,
) -> None:
    """Write an irc.toml for the model SRC: what `irc build` makes of it, and for what.

    Nothing is built or read: files must be there.
    """
    from irtools.builds.start import Start, starting_config
    from irtools.builds.tables import AUTO
    from irtools.cli.console import say
    from irtools.driver.destination import check_writable
    from irtools.errors import UsageError
    from irtools.files import write_text
    from irtools.passmanager import Pipeline
    from irtools.targets import find_target

    path = Path(config_file)
    if path.exists() and not force:
        raise UsageError(f"{path} exists: give another name with --config, or --force")
    check_writable(path)
    if passes != AUTO:
        Pipeline.parse(passes)
    find_target(target, check=False)
    write_text(
        path, starting_config(Start(source, path.parent, passes, target, calibrate, evaluate))
    )
    say(f"irc: wrote {path}; next: irc build" + f" --config {path}" * (path != Path("irc.toml")))
