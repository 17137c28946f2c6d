"""All builds of a release in one table, and `report.md`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from irtools.builds.records import BuildRecord, Scores
from irtools.report.document import Report
from irtools.report.markdown import markdown
from irtools.words import printable, size_text, sqnr_text

__all__ = ["markdown_table", "release_report", "summary_rows"]

HEADINGS = ("build", "size", "smaller", "metric", "of the source", "closeness", "latency", "faster")


def summary_rows(builds: Sequence[BuildRecord]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return headings and cells, without columns in which nothing was measured."""
    rows = [(one.name, *_cells(one.scores)) for one in builds]
    kept = [i for i in range(len(HEADINGS)) if any(row[i] for row in rows)]
    return tuple(HEADINGS[i] for i in kept), [tuple(row[i] for i in kept) for row in rows]


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table, the first column to the left."""
    yield f"| {' | '.join(headings)} |"
    yield f"| --- |{' ---: |' * (len(headings) - 1)}"
    for row in rows:
        cells = (printable(cell, 300).replace("|", "\\|") for cell in row)
        yield f"| {' | '.join(cells)} |"


def release_report(name: str, builds: Sequence[BuildRecord], reports: Mapping[str, Report]) -> str:
    """Return `report.md`: the table of all builds, and the report of each.

    Args:
        reports: By the names of the builds.
    """
    return "\n".join(_lines(name, builds, reports)) + "\n"


def _lines(
    name: str, builds: Sequence[BuildRecord], reports: Mapping[str, Report]
) -> Iterator[str]:
    yield f"# {printable(name)}"
    yield ""
    yield from markdown_table(*summary_rows(builds))
    yield ""
    for one in builds:
        yield f"## {one.name}"
        yield ""
        yield markdown(reports[one.name])


def _cells(scores: Scores) -> Iterator[str]:
    yield size_text(scores.bytes)
    yield f"{scores.original_bytes / max(scores.bytes, 1):.2f}x"
    yield _metric_text(scores)
    yield "" if scores.original is None else f"{scores.original:.4f}"
    yield _agreement(scores)
    yield "" if scores.median_ms is None else f"{scores.median_ms:.2f} ms"
    ratio = scores.speedup
    yield "" if ratio is None else f"{ratio[0]:.2f}x [{ratio[1]:.2f}, {ratio[2]:.2f}]"


def _metric_text(scores: Scores) -> str:
    if scores.value is None:
        return ""
    return f"{scores.metric} {scores.value:.4f} [{scores.low:.4f}, {scores.high:.4f}]"


def _agreement(scores: Scores) -> str:
    if scores.agreement is not None:
        return f"{100 * scores.agreement:.2f} %"
    return "" if scores.sqnr_db is None else sqnr_text(float(scores.sqnr_db))
