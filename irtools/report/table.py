"""The table of a report: one row per pass, the original first."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from irtools.measure.figures import Column, Figure
from irtools.report.cells import Cells
from irtools.report.elsewhere import elsewhere_lines
from irtools.report.entries import ReportData, Row
from irtools.report.kinds import figure_kinds
from irtools.report.tried import goal_lines, tried_view
from irtools.words import counted, printable, size_text

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["cells_of", "heading_of", "legend_of", "notes_of", "render", "report_view"]
__all__ += ["row_line"]


def cells_of(report: ReportData) -> Cells:
    """Return the table of a report; columns without any text are left out."""
    columns = [
        (heading, [cell(row, report.rows[0]) for row in report.rows], always)
        for heading, cell, always in _columns()
    ]
    shown = [(heading, texts) for heading, texts, always in columns if always or any(texts)]
    rows = zip(*(texts for _, texts in shown), strict=True)
    return Cells(tuple(heading for heading, _ in shown), tuple(rows))


def render(report: ReportData, width: int = 200) -> str:
    """Return the view of a console as plain text."""
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, width=width, markup=False, highlight=False, emoji=False)
    for part in report_view(report):
        console.print(part)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def report_view(report: ReportData) -> Sequence[RenderableType]:
    """Return what a console prints of a report: the table, then notes and verdicts."""
    from rich.text import Text

    parts: list[RenderableType] = [Text("\n".join(heading_of(report))), _table(report)]
    if legend := legend_of(report):
        parts.append(Text(printable(legend, 500)))
    parts += [Text(f"  note: {printable(note, 500)}") for note in notes_of(report)]
    styles = {"good": "green", "note": "", "warning": "yellow"}
    for verdict in report.verdicts:
        mark = "warning: " if verdict.level.value == "warning" else ""
        text = f"  {mark}{printable(verdict.text, 500)}"
        parts.append(Text(text, style=styles[verdict.level.value]))
    parts += [Text(f"  {line}") for line in goal_lines(report)]
    parts += [Text(f"  {printable(line, 500)}") for line in elsewhere_lines(report)]
    parts += tried_view(report.tried, report.next)
    return parts


def row_line(row: Row) -> str:
    """Return one line on a pass that is done, with what the table will have of it."""
    columns = list(_columns())
    texts = [(heading, cell(row, None)) for heading, cell, _ in columns[1:]]
    named = [f"{heading} {text}" for heading, text in texts if text]
    return ", ".join([columns[0][1](row, None), *named])


def heading_of(report: ReportData) -> tuple[str, str]:
    """Return what was optimized for what, and on which machine."""
    target, machine = report.target, report.machine
    threads = report.settings.threads or "runtime's choice"
    return (
        f"{printable(report.model.source)}  on {target.name} ({target.runtime}, "
        f"isa {target.isa}, computes in {target.precision}, threads: {threads})",
        f"{machine.cpu}, {counted(machine.cores, 'CPU')}",
    )


def legend_of(report: ReportData) -> str:
    """Return what a reader must know to understand the columns."""
    parts = [part for kind in figure_kinds() for part in kind.legend(report)]
    if any(row.peak_bytes for row in report.rows):
        parts.append("memory: peak of this process during the pass, mapped weights included")
    return "; ".join(parts)


def notes_of(report: ReportData) -> list[str]:
    """Return the notes of all rows, each with its pass, none twice."""
    notes = []
    for row in report.rows:
        prefix = f"{row.text.partition(':')[0]}: " if row.index else ""
        notes += [f"{prefix}{note}" for note in row.notes]
    return list(dict.fromkeys(notes))


def _table(report: ReportData) -> Table:
    from rich.table import Table
    from rich.text import Text

    cells = cells_of(report)
    table = Table(pad_edge=False, show_edge=False)
    table.add_column(cells.headings[0], overflow="fold")
    for heading in cells.headings[1:]:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in cells.rows:
        table.add_row(*map(Text, row))
    return table


Cell = Callable[[Row, "Row | None"], str]


def _columns() -> Iterator[tuple[str, Cell, bool]]:
    """Yield heading, cell of a row and the original's row, and whether it is always shown."""
    yield "pass", _name, True
    yield "changed", _changed, True
    yield "skipped", _skipped, False
    for kind in figure_kinds():
        for column in kind.columns:
            yield column.heading, partial(_figure_cell, kind, column), False
    yield "memory", _memory, False
    yield "seconds", _seconds, True


def _figure_cell(kind: type[Figure], column: Column, row: Row, original: Row | None) -> str:
    figure = kind.of(row)
    if figure is None:
        return ""
    return printable(column.cell(figure, None if original is None else kind.of(original)))


def _name(row: Row, original: Row | None) -> str:
    text, rollback = printable(row.text), row.rollback
    if row.skipped:
        return f"{text} (not run)"
    if rollback is None:
        return text
    if not rollback.planned:
        return f"{text} (dropped)"
    return f"{text} ({rollback.kept} of {rollback.planned} kept)"


def _changed(row: Row, original: Row | None) -> str:
    if not row.index or row.skipped:
        return ""
    return str(row.changed) if row.modified else "-"


def _skipped(row: Row, original: Row | None) -> str:
    return str(row.skipped_parts) if row.skipped_parts else ""


def _memory(row: Row, original: Row | None) -> str:
    return size_text(row.peak_bytes.get("pass"))


def _seconds(row: Row, original: Row | None) -> str:
    return f"{sum(row.seconds.values()):.1f}"
