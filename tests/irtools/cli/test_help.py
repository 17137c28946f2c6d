"""The help of every verb: options under headings, each in one place."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable

import click
import pytest

from irtools.cli.main import VERBS
from irtools.cli.verb import GROUPS, Verb, group_of


def _command(verb: str) -> click.Command:
    name = verb.replace("-", "_")
    command = getattr(importlib.import_module(f"irtools.cli.verbs.{name}"), name)
    assert isinstance(command, click.Command)
    return command


def _options(verb: str) -> list[click.Option]:
    return [p for p in _command(verb).params if isinstance(p, click.Option)]


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_stands_in_a_group(verb: str) -> None:
    assert isinstance(_command(verb), Verb)
    lost = [o.opts for o in _options(verb) if group_of(o)[0] == "Other options"]
    assert not lost, "name these options in irtools/cli/verb.py"


def test_the_groups_name_options_that_exist_and_each_once() -> None:
    listed = [flag for flags in GROUPS.values() for flag in flags]
    known = {flag for verb in VERBS for option in _options(verb) for flag in option.opts}
    assert len(listed) == len(set(listed))
    assert set(listed) - known == {"--help"}


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_shows_every_option_once_and_arguments_in_its_text(
    irc: Callable, verb: str
) -> None:
    found = irc(verb, "--help")
    lines = found.out.splitlines()
    for option in _options(verb):
        shown = [line for line in lines if re.match(rf"  (-\w, )?{option.opts[0]}\b(?!-)", line)]
        assert shown
    # An argument is a word of the usage and explained above; a bare line says nothing.
    assert not {"SRC", "SRC...", "A", "B", "DIR", "NAME"} & {line.strip() for line in lines}
    headings = [line[:-1] for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert headings == [h for h in GROUPS if h in headings]


def test_the_groups_of_optimize(irc: Callable) -> None:
    text = irc("optimize", "--help").out
    places = [text.index(f"\n{h}:\n") for h in ("Passes", "Data", "Measuring", "Output")]
    assert places == sorted(places)
    assert text.index("--calibrate DATA") < text.index("--metric NAME") < text.index("-o, --output")
    assert "Sources other than ONNX files:\n  --task NAME" in text
