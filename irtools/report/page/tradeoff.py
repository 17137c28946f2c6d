"""What can be had: speed against quality, of passes or of everything that a search tried."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from irtools.goals import Interval
from irtools.instruments import FidelityFigure, Latency, MetricFigure, Size, first_ratios
from irtools.pages.blocks import Block, Commands, Drawing, Hint, Paragraph, Section, Table
from irtools.pages.charts import Chart, Dot, scatter
from irtools.report.document import Report
from irtools.report.entries import ReportData, Row, TriedEntry
from irtools.report.page.passes import row_name
from irtools.report.tried import tried_cells
from irtools.words import size_text

__all__ = ["tradeoff"]

_QUALITIES = ("metric:", "loss:", "agreement", "sqnr")
_KEYS = (("after", "taken or on the front"), ("third", "other trials"), ("before", "original"))


_MISSING = (
    "No two models were measured that could be set against each other: --evaluate DATA gives a "
    "metric or closeness, and the benchmark, unless --no-bench switches it off, the speed."
)


@dataclass(frozen=True)
class _Point:
    """A model by its figures, as `TriedEntry.figures` names them."""

    name: str
    figures: Mapping[str, Interval]
    kind: str
    hollow: bool = False


def tradeoff(report: Report) -> Section:
    """Return the section."""
    blocks = [Drawing(chart) for chart in _charts(list(_points(report)))]
    tables = list(_tables(report))
    missing = () if blocks else (Hint(_MISSING),)
    return Section("tradeoff", "Trade-off", (*blocks, *missing, *tables))


def _points(report: ReportData) -> Iterator[_Point]:
    tried = report.trials or report.tried
    if not tried:
        for row in report.rows:
            dropped = row.skipped or (row.rollback is not None and not row.rollback.kept)
            kind = "after" if row.index else "before"
            yield _Point(row_name(row), dict(_of_row(row)), kind, dropped)
        return
    front = {entry.pipeline for entry in report.tried}
    yield _Point("original", dict(_of_row(report.rows[0])), "before")
    for entry in tried:
        chosen = not report.trials or entry.pipeline in front
        kind = "after" if chosen else "third"
        yield _Point(entry.name, entry.figures, kind, entry.outcome != "taken")


def _of_row(row: Row) -> Iterator[tuple[str, Interval]]:
    """Yield the figures of a row, as a search names them."""
    latency, metric = Latency.of(row), MetricFigure.of(row)
    fidelity, size = FidelityFigure.of(row), Size.of(row)
    if not row.index:
        yield "speedup", Interval.exact(1.0)
    for _, ratio in list(first_ratios(() if latency is None else latency.results))[:1]:
        if row.index:
            yield "speedup", Interval(ratio.value, ratio.low, ratio.high)
    if metric is not None:
        yield f"metric:{metric.name}", Interval(metric.value, metric.low, metric.high)
    if fidelity is not None:
        if fidelity.agreement is not None:
            yield "agreement", Interval.exact(fidelity.agreement)
        yield "sqnr", Interval.exact(fidelity.sqnr_db)
    if size is not None:
        yield "size", Interval.exact(float(size.file_bytes))


def _charts(points: Sequence[_Point]) -> Iterator[Chart]:
    """Yield what was measured of two models at least: quality by speed, else by size."""
    names = [name for point in points for name in point.figures]
    sizes = (point.figures["size"].value for point in points if "size" in point.figures)
    whole = next(sizes, 1.0)  # The original comes first.
    for prefix in _QUALITIES:
        for quality in dict.fromkeys(name for name in names if name.startswith(prefix)):
            for across in ("speedup", "size"):
                found = [
                    one for p in points if (one := _dot(p, across, quality, whole)) is not None
                ]
                if len(found) > 1:
                    yield _chart(found, across, quality)
                    return


def _chart(found: Sequence[Dot], across: str, quality: str) -> Chart:
    kind, _, metric = quality.partition(":")
    shown = {
        "metric": metric,
        "loss": "loss in points, less is better" + (f" ({metric})" if metric != "main" else ""),
        "agreement": "answers that agree with the original's",
        "sqnr": "signal-to-noise ratio, dB",
    }[kind]
    axis = "times faster than the original" if across == "speedup" else "times smaller"
    kinds = {one.kind for one in found}
    return scatter(
        "Quality against " + ("speed" if across == "speedup" else "size"),
        found,
        (axis, shown),
        log=True,
        lower_is_better=kind == "loss",
        keys=tuple((key, text) for key, text in _KEYS if key in kinds and "third" in kinds),
        note="Crosses: intervals. Hollow: not taken. Larger dots: larger files. Steps: the front.",
    )


def _dot(point: _Point, across: str, quality: str, whole: float) -> Dot | None:
    x, y = point.figures.get(across), point.figures.get(quality)
    if quality.startswith("loss:") and point.kind == "before":
        y = Interval.exact(0.0)
    if x is None or y is None or not math.isfinite(x.value) or not math.isfinite(y.value):
        return None
    if across == "size":
        x = Interval.exact(whole / x.value)
    if quality.startswith("loss:"):
        y = y.scaled(100.0)
    size = point.figures.get("size")
    shown = "" if size is None else f", {size_text(round(size.value))}"
    title = f"{point.name}: {x.value:.3g} across, {y.value:.4g} upwards{shown}"
    radius = 5.0 if size is None else min(4.0 + math.sqrt(size.value / 1e7), 10.0)
    return Dot(point.name, title, _ends(x), _ends(y), point.kind, point.hollow, radius)


def _ends(found: Interval) -> tuple[float, float, float]:
    return found.value, found.low, found.high


def _tables(report: ReportData) -> Iterator[Block]:
    if report.trials:
        yield _table("The front: no trial is better in every objective", report.tried)
        yield _table(f"All {len(report.trials)} trials", report.trials)
    elif report.tried:
        yield _table("What was tried, in order", report.tried)
    if report.tried:
        yield Paragraph("A pipeline makes its model again: irc optimize SRC --passes PIPELINE.")
    elif report.rows[-1].modified and not report.goals:
        # One pipeline was given, so that nothing else is known.
        more = "irc tune SRC --objective latency --objective loss --max-drop 1%"
        what = "A search draws further points here, each with its pipeline:"
        yield Commands("", ((what, f"{more} --calibrate DATA --evaluate DATA"),))


def _table(caption: str, tried: Sequence[TriedEntry]) -> Table:
    cells = tried_cells(tried)
    return Table(
        caption,
        cells.headings,
        cells.rows,
        texts=("tried", "why"),
        code=("pipeline",),
        off=tuple(n for n, entry in enumerate(tried) if entry.outcome == "refused"),
    )
