"""Writing for people: always to stderr, never with raw names in it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from irtools.files import json_text, write_text
from irtools.words import counted, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from irtools.plugins import Progress
    from irtools.report.entries import Row, TriedEntry

__all__ = [
    "LineProgress",
    "RunDisplay",
    "console",
    "outlook",
    "progress",
    "say",
    "say_notes",
    "write_json",
]


class RunDisplay(Protocol):
    """Shows a person a whole run."""

    def step(self, label: str, done: int, total: int) -> None: ...

    def row(self, row: Row) -> None: ...

    def tried(self, entry: TriedEntry) -> None: ...

    def remaining(self, done: int, total: int, seconds: float) -> None: ...


def console(*, stderr: bool = True) -> Console:
    """Return a console that takes text literally; plain where it is not a terminal."""
    from rich.console import Console

    class _Console(Console):
        def on_broken_pipe(self) -> None:
            """Leave it to `irc`, which ends quietly; rich would end with code 1."""
            raise BrokenPipeError

    file = sys.stderr if stderr else sys.stdout
    wide = None if file.isatty() else 200
    return _Console(file=file, markup=False, highlight=False, emoji=False, width=wide)


def say(message: str) -> None:
    """Print one line for a person."""
    print(printable(message, limit=2000), file=sys.stderr, flush=True)


def say_notes(*models: object) -> None:
    """Print the notes about how models were read, each once."""
    notes = (note for model in models for note in getattr(model, "notes", ()))
    for note in dict.fromkeys(notes):
        say(f"irc: note: {note}")


def write_json(document: Mapping[str, object], path: str) -> None:
    """Write a JSON document to a file, or to stdout for `-`.

    Raises:
        FileError: The file cannot be written.
    """
    text = json_text(document)
    if path == "-":
        sys.stdout.write(text)
        return
    write_text(Path(path), text)


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Progress]:
    """Show steps as bars on a terminal, as plain lines elsewhere."""
    if quiet:
        yield _Quiet()
    elif sys.stderr.isatty():
        with _bars() as bars:
            yield _Bars(bars)
    else:
        yield LineProgress()


@contextmanager
def outlook() -> Iterator[RunDisplay]:
    """Show the steps of a pipeline, its rows as they are done, and the time that is left."""
    if sys.stderr.isatty():
        with _bars() as bars:
            yield _OutlookBars(bars)
    else:
        yield _OutlookLines()


class _Quiet:
    def step(self, label: str, done: int, total: int) -> None:
        """Report nothing."""


class LineProgress:
    """One line when a step starts, then at most one every ten seconds, then one at its end."""

    _INTERVAL_SECONDS = 10.0

    def __init__(self) -> None:
        self._label = ""
        self._told = 0.0

    def step(self, label: str, done: int, total: int) -> None:
        now = time.monotonic()
        if label == self._label and now - self._told < self._INTERVAL_SECONDS:
            return
        self._label, self._told = label, now
        # Some steps learn on the way that they take longer.
        say(f"irc: {label}" + (f" {done}/{max(done, total)}" if total > 1 else ""))


class _Bars:
    def __init__(self, bars: RichProgress) -> None:
        self._shown = bars
        self._tasks: dict[str, TaskID] = {}

    def step(self, label: str, done: int, total: int) -> None:
        shown = printable(label, limit=60)
        task = self._tasks.get(shown)
        if task is None:
            for old in self._tasks.values():
                self._shown.remove_task(old)
            self._tasks = {shown: self._shown.add_task(shown, total=total)}
            task = self._tasks[shown]
        self._shown.update(task, completed=done, total=max(done, total))


def _left(done: int, total: int, seconds: float) -> str:
    """Say how far a run is, and how long it will still take."""
    time_left = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
    return f"{done} of {counted(total, 'pass', 'passes')} done, about {time_left} left"


class _OutlookLines(LineProgress):
    """Lines, with one for each pass that is done."""

    def row(self, row: Row) -> None:
        from irtools.report.table import row_line

        say(f"irc: {row_line(row)}")

    def tried(self, entry: TriedEntry) -> None:
        from irtools.report.tried import tried_line

        say(f"irc: {tried_line(entry)}")

    def remaining(self, done: int, total: int, seconds: float) -> None:
        say(f"irc: {_left(done, total, seconds)}")


class _OutlookBars(_Bars):
    """Bars under the rows that are done, the first one for the whole run."""

    def __init__(self, bars: RichProgress) -> None:
        super().__init__(bars)
        self._whole: TaskID | None = None

    def row(self, row: Row) -> None:
        from irtools.report.table import row_line

        self._shown.console.print(row_line(row))

    def tried(self, entry: TriedEntry) -> None:
        from irtools.report.tried import tried_line

        self._shown.console.print(tried_line(entry))

    def remaining(self, done: int, total: int, seconds: float) -> None:
        text = _left(done, total, seconds)
        if self._whole is None:
            self._whole = self._shown.add_task(text, total=total)
        self._shown.update(self._whole, description=text, completed=done)


def _bars() -> RichProgress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console(),
        transient=True,
    )
