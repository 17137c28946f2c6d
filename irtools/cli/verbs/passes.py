"""`irc passes`: what there is, and every option with type, default and meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from irtools.cli.console import console, write_json
from irtools.cli.types import PASS
from irtools.cli.verb import Verb
from irtools.errors import IrtoolsError, UnknownNameError, UsageError
from irtools.passmanager import Pass, described, pass_document
from irtools.plugins import registry, suggest

__all__ = ["passes"]


@click.command(cls=Verb)
@click.argument("name", required=False, type=PASS)
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def passes(name: str | None, as_json: bool) -> None:
    """List the passes and presets, or explain the pass NAME with all its options."""
    if name is None:
        _list(as_json)
        return
    if name in registry.PRESETS:
        click.echo(f"{name} is short for: {registry.PRESETS[name]}")
        return
    known = [*registry.names("irtools.passes"), *registry.PRESETS]
    if name not in known:
        raise UnknownNameError(f"there is no pass {name!r}{suggest(name, known)}")
    document = _describe(name)
    if as_json:
        write_json(document, "-")
    else:
        _explain(document)


def _list(as_json: bool) -> None:
    rows = [(name, _summary(name)) for name in registry.names("irtools.passes")]
    presets = dict(registry.PRESETS)
    if as_json:
        write_json({"passes": dict(rows), "presets": presets}, "-")
        return
    width = max(len(name) for name in (*dict(rows), *presets))
    for title, lines in (("passes", rows), ("presets", list(presets.items()))):
        click.echo(f"{title}:")
        for name, line in lines:
            click.echo(f"  {name:<{width}}  {line}")
    click.echo("\nirc passes NAME shows the options of one.")


def _summary(name: str) -> str:
    """One line about a pass; a plug-in that cannot be loaded must not hide the others."""
    try:
        summary: str = _describe(name)["summary"]
    except (IrtoolsError, AttributeError) as error:
        return f"(cannot be loaded: {error})"
    return summary


def _describe(name: str) -> Mapping[str, Any]:
    known = described("irtools.passes", name)
    return pass_document(name, _load(name)) if known is None else known


def _load(name: str) -> type[Pass]:
    found = registry.load("irtools.passes", name)
    if not (isinstance(found, type) and issubclass(found, Pass)):
        raise UsageError(f"the plug-in {name!r} is {found!r}, expected a Pass class")
    return found


def _explain(document: Mapping[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    click.echo(f"{document['name']} ({document['exactness']})\n")
    click.echo(document["description"])
    if document["requires"]:
        click.echo(f"\nrequires, and runs first: {', '.join(document['requires'])}")
    if document["options"]:
        table = Table(box=None, pad_edge=False, title_justify="left")
        for heading in ("option", "type", "default", "meaning"):
            table.add_column(heading, overflow="fold")
        for o in document["options"]:
            cells = (o["name"], o["type"], _default_text(o["default"]), o["help"])
            table.add_row(*(Text(str(cell)) for cell in cells))
        click.echo()
        console(stderr=False).print(table)
    if document["counters"]:
        click.echo("\ncounts in the report:")
        for key, phrase in document["counters"].items():
            click.echo(f"  {key}: {phrase}")


def _default_text(value: object) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case list():
            return "+".join(str(item) for item in value) or "(empty)"
        case _:
            return str(value)
