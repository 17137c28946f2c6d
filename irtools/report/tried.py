"""What a search tried, as lines and as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from irtools.report.cells import Cells
from irtools.report.entries import GoalEntry, ReportData, TriedEntry
from irtools.words import printable, size_text, sqnr_text

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["goal_lines", "next_lines", "tried_cells", "tried_line", "tried_view"]

_MARKS = {"taken": "taken", "left": "left", "refused": "not possible"}


def tried_line(entry: TriedEntry) -> str:
    """Return one line on a pipeline that was tried."""
    loss = "loss " if any(key.startswith("loss:") for key in entry.figures) else ""
    shown = ", ".join(text for text in (_speed(entry), _size(entry), loss + _loss(entry)) if text)
    parts = (f"{entry.name} ({entry.pipeline}): {_MARKS[entry.outcome]}", shown, entry.why)
    return "; ".join(printable(part, 500) for part in parts if part)


def tried_cells(tried: Sequence[TriedEntry]) -> Cells:
    """Return the table of what was tried; columns without any text are left out."""
    targets = [entry.target for entry in tried]
    columns = [
        ("target", targets if len(set(targets)) > 1 else []),
        ("tried", [entry.name for entry in tried]),
        ("outcome", [_MARKS[entry.outcome] for entry in tried]),
        ("faster", list(map(_speed, tried))),
        ("latency", list(map(_latency, tried))),
        ("size", list(map(_size, tried))),
        ("loss", list(map(_loss, tried))),
        ("seconds", [f"{entry.seconds:.0f}" if entry.seconds else "" for entry in tried]),
        ("pipeline", [entry.pipeline for entry in tried]),
        ("why", [entry.why for entry in tried]),
    ]
    shown = [(heading, texts) for heading, texts in columns if any(texts)]
    rows = zip(*(map(printable, texts) for _, texts in shown), strict=True)
    return Cells(tuple(heading for heading, _ in shown), tuple(rows))


def tried_view(tried: Sequence[TriedEntry], next: Sequence[str] = ()) -> Iterator[RenderableType]:
    """Yield what a console prints of what was tried, and of what could be."""
    from rich.table import Table
    from rich.text import Text

    if tried:
        cells = tried_cells(tried)
        table = Table(pad_edge=False, show_edge=False)
        for heading in cells.headings:
            wraps = heading in ("tried", "pipeline", "why")
            table.add_column(heading, overflow="fold", no_wrap=not wraps)
        for row in cells.rows:
            table.add_row(*map(Text, row))
        yield table
    for line in next_lines(next):
        yield Text(f"  {line}")


def next_lines(next: Sequence[str]) -> list[str]:
    """Return a line for each thing that could be done."""
    return [f"next: {printable(one, 500)}" for one in next]


def goal_lines(report: ReportData) -> list[str]:
    """Return a line for each goal, and the command that makes the result again."""
    lines = [_goal_line(goal) for goal in report.goals]
    if report.command:
        lines.append(f"the same without searching: {printable(report.command, 1000)}")
    return lines


def _goal_line(goal: GoalEntry) -> str:
    return f"goal {printable(goal.goal)}: {'kept' if goal.kept else 'not kept'}, {goal.figure}"


def _speed(entry: TriedEntry) -> str:
    found = entry.figures.get("speedup")
    if found is None:
        return ""
    interval = f" [{found.low:.2f}, {found.high:.2f}]" if found.low < found.high else ""
    return f"{found.value:.2f}x{interval}"


def _latency(entry: TriedEntry) -> str:
    found = entry.figures.get("latency")
    return "" if found is None else f"{found.value:.2f} ms"


def _size(entry: TriedEntry) -> str:
    found = entry.figures.get("size")
    return "" if found is None else size_text(round(found.value))


def _metric(key: str) -> str:
    name = key.removeprefix("loss:")
    return "" if name == "main" else f" ({name})"


def _loss(entry: TriedEntry) -> str:
    losses = [
        f"{100 * found.value:.2f} % [{100 * found.low:.2f}, {100 * found.high:.2f}]{_metric(key)}"
        for key, found in entry.figures.items()
        if key.startswith("loss:")
    ]
    if losses:
        return "; ".join(losses)
    if (agreement := entry.figures.get("agreement")) is not None:
        return f"{100 * agreement.value:.2f} % agree"
    sqnr = entry.figures.get("sqnr")
    return "" if sqnr is None else sqnr_text(sqnr.value)
