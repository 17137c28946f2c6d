"""`irc targets`: runtimes and devices, and which of them this machine has."""

from __future__ import annotations

import click

from irtools.cli.console import write_json
from irtools.cli.verb import Verb
from irtools.errors import IrtoolsError
from irtools.plugins import registry
from irtools.targets import Isa, Target

__all__ = ["targets"]


@click.command(cls=Verb)
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def targets(as_json: bool) -> None:
    """List the targets and whether this machine can run them."""
    rows = [_describe(name) for name in registry.names("irtools.targets")]
    isa = Isa.detect().value
    if as_json:
        write_json({"isa": isa, "targets": rows}, "-")
        return
    click.echo(f"this machine's instruction set: {isa}\n")
    for row in rows:
        state = row["version"] if row["available"] else f"not here: {row['reason']}"
        click.echo(f"  {row['name']:<13} {row['summary']}\n  {'':<13} {state}")
    known = ", ".join(isa.value for isa in Isa)
    click.echo(f"\nFor another machine: --target NAME:isa=avx2 (one of native, {known})")


def _describe(name: str) -> dict[str, object]:
    row: dict[str, object] = {"name": name, "summary": "", "available": False}
    try:
        found: Target = registry.load("irtools.targets", name)()
        row["summary"] = type(found).summary
        found.check_available()
        row |= {"available": True, "version": found.version()}
    except (IrtoolsError, AttributeError) as error:
        row["reason"] = str(error)
    return row
