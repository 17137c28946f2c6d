"""Every command and pipeline that the pages show is one that `irc` takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from irtools.cli.main import VERBS, cli
from irtools.passmanager import Pipeline

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    # Generated ones say what the code says; old commands stand in the results.
    if path.name not in ("commands.md", "reference.md")
)


def shown(text: str) -> Iterator[str]:
    """Yield the commands of a page: of code blocks, continued lines joined, and in sentences."""
    blocks = re.sub(r"\\\n\s*", " ", text)
    for line in blocks.splitlines():
        whole = line.startswith(("    irc ", "irc "))
        for text in [line.strip()] if whole else re.findall(r"`(irc [^`]+)`", line):
            yield from re.split(r"\s*;\s+|\s&&\s|\s\|\s", text)


def problem(line: str, *, pipelines: bool = True) -> str:
    """Return what `irc` would say of a command line before it runs, or ''."""
    words = shlex.split(line.partition(" > ")[0], comments=True)[1:]
    if not words or words[0].startswith("-") or words[0].isupper() or "..." in words:
        return ""
    if words[0] not in VERBS:
        return f"no command {words[0]}"
    command = cli.get_command(click.Context(cli), words[0])
    assert command is not None
    ctx = click.Context(command, info_name=words[0])
    try:
        given, _, _ = command.make_parser(ctx).parse_args(list(words[1:]))
    except click.UsageError as error:
        # In a sentence an option stands without its value, and a source is understood.
        return "" if "requires an argument" in error.message else error.message
    text = given.get("passes")
    if text == "none":  # Of `irc sweep`: an export alone.
        return ""
    if (
        not pipelines
        or not isinstance(text, str)
        or not re.fullmatch(r"[a-z0-9:=,+.%/-]+[A-Za-z0-9%]", text)
    ):
        return ""
    try:
        Pipeline.parse(text)
    except Exception as error:
        return str(error)
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_of_the_page_are_taken(page: Path) -> None:
    found = list(shown(page.read_text(encoding="utf-8")))
    # Guides add passes and options that only their readers have.
    ours = not page.name.startswith("adding-")
    faults = {line: said for line in found if (said := problem(line, pipelines=ours))}
    assert not faults


def test_faults_are_seen() -> None:
    assert problem("irc optimise model.onnx")
    assert problem("irc optimize model.onnx --pases int8")
    assert problem("irc optimize model.onnx --passes cleanup,int9")
    assert not problem("irc optimize model.onnx --passes cleanup,int8:mode=dynamic -o out.onnx")


def test_the_readme_names_every_verb() -> None:
    (row,) = re.findall(r"^\| verbs \| (.*) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert sorted(re.findall(r"`([^`]+)`", row)) == sorted(VERBS)
