"""`irc completion`: scripts that let a shell complete verbs, passes, options and files."""

from __future__ import annotations

import click

from irtools.cli.shells import SHELLS, script
from irtools.cli.verb import Verb

__all__ = ["completion"]


@click.command(
    cls=Verb,
    epilog="Example: irc completion bash > ~/.local/share/bash-completion/completions/irc",
)
@click.argument("shell", metavar="|".join(SHELLS), type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that completes irc in bash, zsh or fish; its head says where to put it.

    Completed are verbs, options, passes with their options and values
    (--passes cleanup,int8:calibrator=), targets, metrics, and files elsewhere.
    """
    click.echo(script(shell), nl=False)
