"""`irc operators`: what is known of which operator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from irtools.cli.console import write_json
from irtools.cli.verb import Verb
from irtools.errors import UnknownNameError
from irtools.plugins import suggest
from irtools.words import counted, printable

if TYPE_CHECKING:
    from irtools.analysis.coverage import Coverage

__all__ = ["operators"]

_MANY = 10**6


@click.command(cls=Verb, epilog="Example: irc operators Conv com.microsoft::FastGelu --coverage")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--coverage", "as_table", is_flag=True, help="Print operator by rule as a table.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def operators(names: Sequence[str], as_table: bool, as_json: bool) -> None:
    """List the operators by what they do, or explain those named NAME, with the rules they have.

    NAME is an operator of the ONNX standard (`Conv`) or, with its domain, another one
    (`com.microsoft::FastGelu`).
    """
    from irtools.analysis.coverage import coverage

    rows = _chosen(coverage(), names)
    if as_json:
        write_json({"operators": [_document(row) for row in rows]}, "-")
    elif as_table:
        _print_table(rows)
    elif names:
        click.echo("\n\n".join("\n".join(_explained(row)) for row in rows))
    else:
        _list(rows)


def _chosen(rows: Sequence[Coverage], names: Sequence[str]) -> Sequence[Coverage]:
    known = {row.op.key: row for row in rows}
    for name in names:
        if name not in known:
            hint = suggest(name, known)
            # A line with all of them would help no one.
            hint = hint if "did you mean" in hint else "; irc operators lists them"
            raise UnknownNameError(f"there is no operator {name!r}{hint}")
    return [known[name] for name in names] if names else rows


def _document(row: Coverage) -> Mapping[str, Any]:
    op = row.op
    return {
        "name": op.name,
        "domain": op.domain or "ai.onnx",
        "kind": op.kind.value,
        "weight": None if op.weight is None else op.weight.input,
        "bias": None if op.bias is None else op.bias.input,
        "random": op.random,
        "rules": dict(row.answers),
    }


def _list(rows: Sequence[Coverage]) -> None:
    by_kind: dict[str, list[str]] = {}
    for row in rows:
        by_kind.setdefault(row.op.kind.value, []).append(printable(row.op.key))
    for kind, names in sorted(by_kind.items()):
        click.echo(click.wrap_text(f"{kind}: {' '.join(names)}", 100, "", "  "))
    click.echo("\nirc operators NAME explains one, irc operators --coverage shows all rules.")


def _print_table(rows: Sequence[Coverage]) -> None:
    from irtools.analysis.coverage import COLUMNS

    head = ["operator", "kind", *COLUMNS]
    cells = [[printable(r.op.key), r.op.kind.value, *map(_mark, r.answers.values())] for r in rows]
    known = [sum(bool(r.answers[name]) for r in rows) for name in COLUMNS]
    total = [f"{len(rows)} operators", "", *map(str, known)]
    widths = [max(map(len, column)) for column in zip(head, *cells, total, strict=True)]
    for line in (head, *cells, total):
        padded = (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())
    click.echo(
        "\nown: a rule of its own, kind: the rule of its kind, plugin: declared by a plug-in, "
        "type: follows from the type,\n-: none, <24: means something else from opset 24 on"
    )


def _mark(answer: str) -> str:
    return answer or "-"


def _explained(row: Coverage) -> Iterator[str]:
    from irtools.analysis.coverage import phrases
    from irtools.model import MAX_OPSET, find_schema

    op = row.op
    yield f"{printable(op.key)} ({op.kind.value})"
    schema = find_schema(op.domain, op.name, MAX_OPSET)
    if schema is not None:
        inputs = _count(schema.min_inputs, schema.max_inputs, "input")
        outputs = _count(schema.min_outputs, schema.max_outputs, "output")
        yield f"  since opset {schema.since}: {inputs}, {outputs}"
        if schema.attributes:
            named = f"attributes: {', '.join(sorted(schema.attributes))}"
            yield click.wrap_text(named, 100, "  ", "    ")
    for word, port in (("weight", op.weight), ("bias", op.bias)):
        if port is not None:
            yield f"  {word}: input {port.input}"
    if op.random:
        yield "  random: two runs may give two answers"
    for name, phrase in phrases().items():
        yield f"  {name:<8}  {_mark(row.answers[name]):<9}  {phrase}"


def _count(low: int, high: int, noun: str) -> str:
    if low == high:
        return counted(low, noun)
    return f"{low} or more {noun}s" if high > _MANY else f"{low} to {high} {noun}s"
