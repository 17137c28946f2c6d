"""A report as Markdown, made for the comment of a pull request."""

from __future__ import annotations

from collections.abc import Iterator

from irtools.report.cells import Cells
from irtools.report.elsewhere import elsewhere_lines
from irtools.report.entries import ReportData
from irtools.report.table import cells_of, heading_of, legend_of, notes_of
from irtools.report.tried import goal_lines, next_lines, tried_cells
from irtools.words import printable

__all__ = ["markdown"]

_MARKS = {"good": "✅", "note": "ℹ️", "warning": "⚠️"}
_SPECIAL = str.maketrans({c: f"\\{c}" for c in "\\`*_{}[]<>|#"})


def markdown(report: ReportData) -> str:
    """Return the table, what the figures mean, and the rest folded away."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: ReportData) -> Iterator[str]:
    what, where = heading_of(report)
    yield f"### `{_code(report.pipeline)}` on {_text(report.model.source)}"
    yield ""
    yield from table(cells_of(report), "---:")
    yield ""
    for verdict in report.verdicts:
        yield f"- {_MARKS[verdict.level.value]} {_text(verdict.text)}"
    yield from (f"- {_text(line)}" for line in goal_lines(report))
    yield from (f"- {_text(line)}" for line in elsewhere_lines(report))
    yield ""
    yield from _tried(report)
    yield "<details><summary>How it was measured</summary>"
    yield ""
    details = (what, where, legend_of(report), *notes_of(report))
    yield from (f"- {_text(detail)}" for detail in details if detail)
    for name, data in (("calibration", report.calibration), ("evaluation", report.evaluation)):
        if data is not None:
            yield f"- {name}: {_text(data.source)}, {data.samples} samples, `{data.sha256[:12]}`"
    yield f"- model `{report.model.sha256[:12]}`, result `{report.result.sha256[:12]}`"
    yield f"- {_text(', '.join(f'{name} {found}' for name, found in report.versions.items()))}"
    yield ""
    yield "</details>"


def _tried(report: ReportData) -> Iterator[str]:
    if not report.tried:
        return
    cells = tried_cells(report.tried)
    yield "<details><summary>What was tried</summary>"
    yield ""
    yield from table(cells)
    yield ""
    yield from (f"- {_text(line)}" for line in next_lines(report.next))
    yield ""
    yield "</details>"
    yield ""


def table(cells: Cells, align: str = "---") -> Iterator[str]:
    """Yield the lines of a table, columns but the first aligned as is said."""
    yield f"| {' | '.join(map(_text, cells.headings))} |"
    yield f"| --- |{f' {align} |' * (len(cells.headings) - 1)}"
    yield from (f"| {' | '.join(map(_text, row))} |" for row in cells.rows)


def _text(text: str) -> str:
    """Return text that means itself; names in models are not ours."""
    return printable(text, 1000).translate(_SPECIAL)


def _code(text: str) -> str:
    return printable(text, 1000).replace("`", "'")
