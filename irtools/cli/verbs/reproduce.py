"""`irc reproduce`: runs a failed pass again."""

from __future__ import annotations

from pathlib import Path

import click

from irtools.cli import options as options
from irtools.cli.types import FOLDER
from irtools.cli.verb import Verb

__all__ = ["reproduce"]


@click.command(cls=Verb)
@click.argument("folder", metavar="DIR", type=FOLDER)
@options.work_dir_option
def reproduce(folder: str) -> None:
    """Run a failed pass again from the reproducer folder DIR.

    Fails as the pass failed; says so where it no longer does, or fails because something is
    missing.
    """
    from irtools.cli.console import progress, say
    from irtools.data import DataSettings
    from irtools.errors import IrtoolsError
    from irtools.instruments import Recipe, may_be_bug
    from irtools.measure.machine import versions
    from irtools.search import optimize

    recipe = Recipe.read(Path(folder))
    for name, version in recipe.versions.items():
        if versions().get(name) != version:
            say(f"irc: note: {name} was {version}, is {versions().get(name, 'absent')}")
    say(f"irc: running {recipe.pipeline} on {recipe.model} for {recipe.target}")
    try:
        with progress() as shown:
            optimize(
                recipe.model,
                recipe.pipeline,
                target=recipe.target,
                calibration=recipe.calibration,
                evaluation=recipe.evaluation,
                data=DataSettings(max_length=recipe.max_length),
                bench=None,
                seed=recipe.seed,
                threads=recipe.threads,
                reproducer=False,
                progress=shown,
            )
    except IrtoolsError as error:
        what = "reproduced" if may_be_bug(error) else "it failed in another way"
        say(f"irc: {what}; it was: {recipe.error}")
        raise error
    say(f"irc: not reproduced; it was: {recipe.error}")
