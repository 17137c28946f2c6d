"""`irc passes`: what there is, and every option with type, default and meaning."""

from __future__ import annotations

import inspect
from typing import Any

import click

from irtools.cli._console import console, write_json
from irtools.errors import IrtoolsError, UnknownNameError, UsageError
from irtools.passmanager import Pass, options_of, registry
from irtools.passmanager._suggest import suggest

__all__ = ["passes"]


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def passes(name: str | None, as_json: bool) -> None:
    """List the passes and presets, or explain the pass NAME with all its options."""
    if name is None:
        _list(as_json)
        return
    if name in registry.PRESETS:
        click.echo(f"{name} is short for: {registry.PRESETS[name]}")
        return
    found = _load(name)
    document = _describe(name, found)
    if as_json:
        write_json(document, "-")
    else:
        _explain(found, document)


def _list(as_json: bool) -> None:
    rows = [(name, _summary_of(name)) for name in registry.names("irtools.passes")]
    presets = dict(registry.PRESETS)
    if as_json:
        write_json({"passes": dict(rows), "presets": presets}, "-")
        return
    for title, lines in (("passes", rows), ("presets", list(presets.items()))):
        click.echo(f"{title}:")
        for name, line in lines:
            click.echo(f"  {name:<12} {line}")
    click.echo("\nirc passes NAME shows the options of one.")


def _load(name: str) -> type[Pass]:
    known = [*registry.names("irtools.passes"), *registry.PRESETS]
    if name not in known:
        raise UnknownNameError(f"there is no pass {name!r}{suggest(name, known)}")
    found = registry.load("irtools.passes", name)
    if not (isinstance(found, type) and issubclass(found, Pass)):
        raise UsageError(f"the plug-in {name!r} is {found!r}, expected a Pass class")
    return found


def _summary_of(name: str) -> str:
    """One line about a pass; a plug-in that cannot be loaded must not hide the others."""
    try:
        return _summary(_load(name))
    except (IrtoolsError, AttributeError) as error:
        return f"(cannot be loaded: {error})"


def _summary(found: type[Pass]) -> str:
    return found.summary or _docstring(found).partition("\n")[0]


def _docstring(found: type[Pass]) -> str:
    return inspect.cleandoc(found.__doc__ or "")


def _describe(name: str, found: type[Pass]) -> dict[str, Any]:
    return {
        "name": name,
        "summary": _summary(found),
        "description": _docstring(found),
        "exactness": found.exactness.value,
        "idempotent": found.idempotent,
        "requires": list(found.requires),
        "options": [
            {
                "name": o.name,
                "type": o.type_text,
                "default": list(o.default) if isinstance(o.default, tuple) else o.default,
                "help": o.help,
            }
            for o in options_of(found)
        ],
        "statistics": dict(found.statistics),
    }


def _explain(found: type[Pass], document: dict[str, Any]) -> None:
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
    if document["statistics"]:
        click.echo("\ncounts in the report:")
        for key, phrase in document["statistics"].items():
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
