"""A report as a piece of HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from irtools.report.cells import Cells
from irtools.report.elsewhere import elsewhere_lines
from irtools.report.entries import ReportData
from irtools.report.table import cells_of, heading_of, legend_of, notes_of
from irtools.report.tried import goal_lines, next_lines, tried_cells
from irtools.words import printable

__all__ = ["html"]


def html(report: ReportData) -> str:
    """Return the table, its legend, notes and verdicts; without scripts and outside files."""
    return "\n".join(_lines(report))


def _lines(report: ReportData) -> Iterator[str]:
    yield f"<p>{'<br>'.join(map(_text, heading_of(report)))}</p>"
    yield from _table(cells_of(report))
    if legend := legend_of(report):
        yield f"<p><small>{_text(legend)}</small></p>"
    yield "<ul>"
    yield from (f"<li>note: {_text(note)}</li>" for note in notes_of(report))
    for verdict in report.verdicts:
        yield f"<li>{_text(f'{verdict.level.value}: {verdict.text}')}</li>"
    yield from (f"<li>{_text(line)}</li>" for line in goal_lines(report))
    yield from (f"<li>{_text(line)}</li>" for line in elsewhere_lines(report))
    yield from (f"<li>{_text(line)}</li>" for line in next_lines(report.next))
    yield "</ul>"
    if report.tried:
        yield "<p>What was tried</p>"
        yield from _table(tried_cells(report.tried))


def _table(cells: Cells) -> Iterator[str]:
    yield "<table><thead><tr>"
    yield from (f"<th>{_text(heading)}</th>" for heading in cells.headings)
    yield "</tr></thead><tbody>"
    for row in cells.rows:
        yield f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>"
    yield "</tbody></table>"


def _text(text: str) -> str:
    return escape(printable(text, 1000))
