"""Write docs/reference.md, docs/commands.md and the manifest of the command line from the code.

python docs/make_reference.py [--check]
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from irtools.cli.main import VERBS, cli
from irtools.cli.verb import options_by_group
from irtools.passmanager import MANIFEST, Option, Pass, make_manifest, options_of, summary_of
from irtools.plugins import registry

REFERENCE = Path(__file__).parent / "reference.md"
COMMANDS = Path(__file__).parent / "commands.md"
COMMANDS_HEAD = """# Commands

Written by `python docs/make_reference.py` from the code; do not edit by hand.
`irc VERB --help` prints the same.
"""
HEAD = """# Reference

Written by `python docs/make_reference.py` from the docstrings; do not edit by hand.
`irc passes NAME` prints the same at a prompt.
"""


def main() -> int:
    """Write all, or with `--check` compare them."""
    texts = {
        REFERENCE: "\n".join(page()),
        COMMANDS: "\n".join(commands()),
        MANIFEST: make_manifest(),
    }
    if "--check" in sys.argv[1:]:
        return int(any(_text_of(path) != text for path, text in texts.items()))
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    return 0


def _text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def page() -> Iterator[str]:
    """Yield the lines of the page."""
    yield HEAD
    yield "## Passes\n"
    for name in own_names("irtools.passes"):
        yield from pass_section(registry.load("irtools.passes", name))
    yield "## Presets\n"
    yield from (f"- `{name}` is `{text}`" for name, text in registry.PRESETS.items())
    for title, group in (
        ("Targets", "irtools.targets"),
        ("Metrics", "irtools.metrics"),
        ("Frontends", "irtools.frontends"),
    ):
        yield f"\n## {title}\n"
        for name in own_names(group):
            kind = registry.load(group, name)
            yield f"- `{name}`: {summary_of(kind)}"
    yield ""


def commands() -> Iterator[str]:
    """Yield the lines of the page of commands."""
    yield COMMANDS_HEAD
    for verb in VERBS:
        command = cli.get_command(click.Context(cli), verb)
        assert command is not None
        ctx = click.Context(command, info_name=f"irc {verb}")
        yield f"## `irc {verb}`\n"
        yield f"    {' '.join([f'irc {verb}', *command.collect_usage_pieces(ctx)])}\n"
        yield inspect.cleandoc((command.help or "").replace("\b\n", "")) + "\n"
        for group, options in options_by_group(command, ctx).items():
            yield f"| {group} | |\n| --- | --- |"
            yield from (f"| `{names}` | {_cell(meaning)} |" for names, meaning in options)
            yield ""
    yield (cli.epilog or "") + "\n"


def _cell(text: str) -> str:
    """Return what may stand in a cell; outside code, angle brackets would be taken for HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "\\<")


def own_names(group: str) -> list[str]:
    """Return the names that irtools itself registers: plug-ins have their own pages."""
    points = registry.plugins(group)
    return [name for name in sorted(points) if points[name].value.startswith("irtools.")]


def pass_section(kind: type[Pass]) -> Iterator[str]:
    """Yield the section of one pass."""
    yield f"### `{kind.name}`\n"
    yield (inspect.getdoc(kind) or "") + "\n"
    repeat = "yes" if kind.idempotent else "no"
    needs = f" Requires: {', '.join(f'`{text}`' for text in kind.requires)}." * bool(kind.requires)
    yield f"Outputs: {kind.exactness.value}. Idempotent: {repeat}.{needs}\n"
    options = options_of(kind)
    if options:
        yield "| option | type | default | meaning |"
        yield "| --- | --- | --- | --- |"
        yield from map(option_row, options)
        yield ""
    if kind.counters:
        yield "Counters: " + "; ".join(f"`{k}` {v}" for k, v in kind.counters.items()) + ".\n"


def option_row(option: Option) -> str:
    """Return one row of an option table."""
    default = "none" if option.default in (None, ()) else str(option.default)
    kind = option.type_text.replace("|", "\\|")
    return f"| `{option.name}` | {kind} | {default} | {option.help.replace('|', chr(92) + '|')} |"


if __name__ == "__main__":
    sys.exit(main())
