"""What each pass did, and what the model was after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from irtools.instruments import (
    FidelityFigure,
    Latency,
    MetricFigure,
    Rollback,
    Size,
    first_ratios,
)
from irtools.pages.blocks import (
    Block,
    Drawing,
    Facts,
    Folded,
    Hint,
    Paragraph,
    Remarks,
    Section,
    Table,
)
from irtools.pages.charts import Bar, Chart, Estimate, bars, intervals
from irtools.report.document import Report
from irtools.report.entries import ReportData, Row
from irtools.report.table import cells_of, legend_of
from irtools.words import size_text, sqnr_text

__all__ = ["passes", "row_name"]

_PROSE = ("further metrics",)


def passes(report: Report) -> Section:
    """Return the table, a waterfall for each figure, and what each pass says of itself."""
    cells = cells_of(report)
    off = tuple(row.index for row in report.rows if _is_off(row))
    table = Table("The model after each pass", cells.headings, cells.rows, texts=_PROSE, off=off)
    blocks: list[Block] = [table]
    if legend := legend_of(report):
        blocks.append(Paragraph(f"{legend[0].upper()}{legend[1:]}."))
    blocks += [Drawing(chart) for chart in _waterfall(report)]
    if not any(MetricFigure.of(row) for row in report.rows):
        blocks.append(Hint("--evaluate DATA with labels adds the task metric after each pass."))
    blocks += list(_details(report))
    return Section("passes", "Passes", tuple(blocks))


def row_name(row: Row) -> str:
    """Return the text of a pass, and what became of it."""
    if row.skipped:
        return f"{row.text} (not run)"
    rollback = Rollback.of(row)
    if rollback is None:
        return row.text
    kept = f"{rollback.kept} of {rollback.planned} kept" if rollback.planned else "dropped"
    return f"{row.text} ({kept})"


def _is_off(row: Row) -> bool:
    """Whether a pass had no effect: not run, or dropped as a whole."""
    rollback = Rollback.of(row)
    return row.skipped or (rollback is not None and not rollback.kept)


def _waterfall(report: ReportData) -> Iterator[Chart]:
    """Yield a chart for each figure that was measured after a pass."""
    rows = report.rows
    for phase in _phases(rows[-1]):
        speeds = [one for row in rows if (one := _speed(row, phase)) is not None]
        if len(speeds) > 1:
            where = f", {phase}" if phase else ""
            yield intervals(f"Times faster than the original{where}", speeds, base=1.0, unit="x")
    sizes = [size for row in rows if (size := _size(row)) is not None]
    if len({size.values for size in sizes}) > 1:
        yield bars("Size on disk", sizes, (("after", "size"),), unit=" MB")
    yield from _quality(rows)


def _quality(rows: Sequence[Row]) -> Iterator[Chart]:
    """Yield the main metric after each pass; without one how close the outputs are."""
    metrics = [(found, row) for row in rows if (found := MetricFigure.of(row)) is not None]
    if metrics:
        first, estimates = metrics[0][0], [_metric(*one) for one in metrics]
        yield intervals(first.name, estimates, base=first.value, note="The line: the original.")
        return
    closeness = [one for row in rows[1:] if (one := _fidelity(row)) is not None]
    if closeness:
        yield intervals("Signal-to-noise ratio against the original", closeness, unit=" dB")


def _phases(row: Row) -> list[str | None]:
    figure = Latency.of(row)
    return [] if figure is None else [phase for phase, _ in first_ratios(figure.results)]


def _kind(row: Row) -> str:
    return "after" if row.index else "before"


def _speed(row: Row, phase: str | None) -> Estimate | None:
    figure = Latency.of(row)
    ratios = {} if figure is None else dict(first_ratios(figure.results))
    if (ratio := ratios.get(phase)) is None:
        return None
    shown = f"{ratio.value:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]" if row.index else "1.00x"
    ends = (ratio.value, ratio.low, ratio.high)
    return Estimate(row_name(row), shown, *ends, _kind(row), _is_off(row))


def _size(row: Row) -> Bar | None:
    figure = Size.of(row)
    if figure is None:
        return None
    return Bar(row_name(row), size_text(figure.file_bytes), (figure.file_bytes / 1e6,))


def _metric(found: MetricFigure, row: Row) -> Estimate:
    shown = f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]"
    ends = (found.value, found.low, found.high)
    return Estimate(row_name(row), shown, *ends, _kind(row), _is_off(row))


def _fidelity(row: Row) -> Estimate | None:
    found = FidelityFigure.of(row)
    if found is None or not abs(found.sqnr_db) < float("inf"):
        return None
    value = found.sqnr_db
    return Estimate(row_name(row), sqnr_text(value), value, value, value, hollow=_is_off(row))


def _details(report: ReportData) -> Iterator[Block]:
    """Yield for each row what folds out: notes, counts, options, seconds."""
    options = {entry.text: entry.options for entry in report.passes}
    for row in report.rows:
        facts = tuple(_facts(row, options.get(row.text, {})))
        notes = (Remarks("", row.notes),) if row.notes else ()
        yield Folded(row_name(row), (*notes, Facts("", facts)))


def _facts(row: Row, options: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    yield "checks that held", ", ".join(row.checks)
    yield "counts", ", ".join(f"{name} {count}" for name, count in row.counters.items() if count)
    yield "options", ", ".join(f"{name}={_option(value)}" for name, value in options.items())
    spent = {name: seconds for name, seconds in row.seconds.items() if seconds >= 0.05}
    yield "seconds", ", ".join(f"{name} {seconds:.1f}" for name, seconds in spent.items())


def _option(value: object) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value)) or "-"
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
