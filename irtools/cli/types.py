"""Types of arguments and options that a shell can complete.

Values stay text: what they mean is decided, and refused, where they are used. A plain string
type would answer a shell with nothing, and then file names no longer complete (click issue 1945).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = [
    "DATA",
    "FIGURES",
    "FILE",
    "FOLDER",
    "METRIC",
    "OUT",
    "PASS",
    "PIPELINE",
    "SOURCE",
    "TARGET",
    "TRACKER",
]


class _Text(click.ParamType):
    """Text, shown in the help under a name.

    Args:
        name: As the help shows it.
        kind: What the shell completes: `file` or `dir`.
    """

    def __init__(self, name: str, kind: str = "file") -> None:
        self.name = name
        self._kind = kind

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[Any]]:
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(value, help=help or None, unfinished=unfinished)
            for value, help, unfinished in self.candidates(incomplete)
            if value.startswith(incomplete)
        ]
        return found or [CompletionItem(incomplete, type=self._kind)]

    def candidates(self, incomplete: str) -> Iterable[tuple[str, str, bool]]:
        """Yield words, what they mean, and whether something may follow in the same word."""
        return ()


class _Target(_Text):
    def candidates(self, incomplete: str) -> Iterator[tuple[str, str, bool]]:
        from irtools.passmanager import described
        from irtools.plugins import registry

        before, colon, _ = incomplete.rpartition(":")
        if colon:
            from irtools.targets import option_words

            name = before.split(":")[0]
            if name in registry.names("irtools.targets"):
                for word in option_words(name):
                    yield f"{before}:{word}", "", word.endswith("=")
            return
        for known in registry.names("irtools.targets"):
            document = described("irtools.targets", known)
            yield known, document["summary"] if document else "", False


class _Metric(_Text):
    def candidates(self, incomplete: str) -> Iterator[tuple[str, str, bool]]:
        from irtools.passmanager import described
        from irtools.plugins import registry

        for known in registry.names("irtools.metrics"):
            document = described("irtools.metrics", known)
            yield known, document["summary"] if document else "", False


class _Pass(_Text):
    def candidates(self, incomplete: str) -> Iterator[tuple[str, str, bool]]:
        from irtools.cli.pass_words import names

        for name, summary in names():
            yield name, summary, False


class _Figures(_Text):
    """Names joined by commas."""

    def candidates(self, incomplete: str) -> Iterator[tuple[str, str, bool]]:
        before, comma, _ = incomplete.rpartition(",")
        from irtools.measure.figures import Figure
        from irtools.report.kinds import figure_kinds

        for kind in figure_kinds():
            if kind.instrument.__func__ is not Figure.instrument.__func__:  # type: ignore[attr-defined]
                yield f"{before}{comma}{kind.key.replace('_', '-')}", "", False


class _Tracker(_Text):
    def candidates(self, incomplete: str) -> Iterator[tuple[str, str, bool]]:
        from irtools.plugins import registry

        for known in registry.names("irtools.trackers"):
            yield known, "", False


class _Pipeline(_Text):
    """`name:key=value:key=value`, joined by commas: the last word of it is completed."""

    def candidates(self, incomplete: str) -> Iterator[tuple[str, str, bool]]:
        from irtools.cli.pass_words import pipeline_words

        yield from pipeline_words(incomplete)


FILE = _Text("FILE")
FOLDER = _Text("DIR", "dir")
DATA = _Text("DATA")
SOURCE = _Text("SRC")
OUT = _Text("OUT")
TARGET = _Target("NAME")
METRIC = _Metric("NAME")
PASS = _Pass("NAME")
FIGURES = _Figures("NAMES")
PIPELINE = _Pipeline("TEXT")
TRACKER = _Tracker("TRACKER")
