"""What differs between two runs, in what came out and in what went in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from irtools.instruments import FidelityFigure, Latency, MetricFigure, Size, first_ratios
from irtools.measure.figures import Measured
from irtools.report.cells import Cells
from irtools.report.entries import ReportData
from irtools.words import size_text, sqnr_text

__all__ = ["Both", "Compared", "Ends", "Kind", "cautions", "compared_figures", "comparison_text"]
__all__ += ["figure_cells", "outcome_of"]

Kind = Literal["speed", "size", "metric", "closeness"]

Both = tuple[ReportData, ReportData]


@dataclass(frozen=True)
class Ends:
    """A figure of a result with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Compared:
    """A figure of the results of two runs.

    Attributes:
        name: What it is.
        kind: What it measures; of a decoder each phase has a speed of its own.
        found: Of the first and of the second; None where it was not measured.
        shown: A number as text.
        larger: More of it is better.
        scaled: By how much a chart divides it.
        comparable: The runs were on the same data, or machine and original, whichever it takes.
    """

    name: str
    kind: Kind
    found: tuple[Ends | None, Ends | None]
    shown: Callable[[float], str]
    larger: bool
    scaled: float = 1.0
    comparable: bool = True

    def text(self, which: int) -> str:
        """Return a figure with its interval."""
        one = self.found[which]
        if one is None:
            return ""
        if one.low == one.high:
            return self.shown(one.value)
        return f"{self.shown(one.value)} [{self.shown(one.low)}, {self.shown(one.high)}]"

    @property
    def outcome(self) -> str:
        """Which of the two is better: `A` or `B`; else why neither; empty: one is missing."""
        first, second = self.found
        if first is None or second is None:
            return ""
        if not self.comparable:
            return "not comparable"
        if first == second:
            return "equal"
        if first.low <= second.high and second.low <= first.high:
            return "within noise"
        return "A" if (first.value > second.value) == self.larger else "B"


def compared_figures(both: Both) -> list[Compared]:
    """Return the figures that the result of one of the runs has."""
    timed = _same_model(both) and _same_place(both)
    kinds = ((_speeds(both), timed), (_sizes(both), True), (_quality(both), _same_data(both)))
    return [
        replace(one, comparable=comparable)
        for found, comparable in kinds
        for one in found
        if any(one.found)
    ]


def outcome_of(found: Sequence[Compared]) -> str:
    """Say in a sentence which result is better in what."""
    parts = []
    for which in "AB":
        names = [one.name for one in found if one.outcome == which]
        if names:
            parts.append(f"{which} is better in {' and '.join(names)}")
    noise = [one.name for one in found if one.outcome == "within noise"]
    if noise:
        parts.append(f"{' and '.join(noise)}: within noise")
    said = "; ".join(parts) or "no figure of the results differs"
    return f"{said[0].upper()}{said[1:]}."


def figure_cells(found: Sequence[Compared]) -> Cells:
    """Return the figures of both results, and which one is better."""
    rows = ((one.name, one.text(0), one.text(1), one.outcome) for one in found)
    return Cells(("figure", "A", "B", "better"), tuple(rows))


def comparison_text(first: ReportData, second: ReportData) -> str:
    """Return what a console shows of two runs: the sentence, cautions, and the table."""
    both = first, second
    found = compared_figures(both)
    cells = figure_cells(found)
    lines = [cells.headings, *cells.rows]
    wide = [max(len(line[n]) for line in lines) for n in range(len(cells.headings))]
    table = ("  ".join(map(str.ljust, line, wide)).rstrip() for line in lines)
    warned = (f"warning: {text}" for text in cautions(both))
    return "\n".join((outcome_of(found), *warned, *table)) + "\n"


def cautions(both: Both) -> Iterator[str]:
    """Yield why figures of the two runs cannot be compared with each other."""
    if not _same_model(both):
        yield "the originals are different models: speeds are each against its own original"
    if not _same_place(both):
        yield "the runs were on different machines: speeds do not compare"
    if not _same_data(both):
        yield "the evaluation data differs: metrics and closeness do not compare"


def _same_model(both: Both) -> bool:
    return both[0].model.sha256 == both[1].model.sha256


def _same_place(both: Both) -> bool:
    a, b = (one.machine for one in both)
    return (a.cpu, a.isa, a.quota) == (b.cpu, b.isa, b.quota)


def _same_data(both: Both) -> bool:
    a, b = (one.evaluation and one.evaluation.sha256 for one in both)
    return _same_model(both) and a == b


def _speeds(both: Both) -> Iterator[Compared]:
    rows = tuple(one.rows[-1] for one in both)
    for phase in dict.fromkeys(phase for row in rows for phase, _ in _ratios(row)):
        speeds = tuple(dict(_ratios(row)).get(phase) for row in rows)
        where = f" ({phase})" if phase else ""
        name = f"times faster than its original{where}"
        yield Compared(name, "speed", _pair(speeds), lambda v: f"{v:.2f}x", True)


def _sizes(both: Both) -> Iterator[Compared]:
    rows = tuple(one.rows[-1] for one in both)
    sizes = tuple(None if (s := Size.of(row)) is None else _exact(s.file_bytes) for row in rows)
    yield Compared("size", "size", _pair(sizes), lambda v: size_text(round(v)), False, 1e6)


def _quality(both: Both) -> Iterator[Compared]:
    rows = tuple(one.rows[-1] for one in both)
    yield from _metrics(rows)
    closeness = [FidelityFigure.of(row) for row in rows]
    agreed = tuple(
        None if f is None or f.agreement is None else _exact(f.agreement) for f in closeness
    )
    yield Compared(
        "agreement", "closeness", _pair(agreed), lambda v: f"{100 * v:.2f} %", True, 0.01
    )
    noise = tuple(None if f is None else _exact(f.sqnr_db) for f in closeness)
    yield Compared("SQNR", "closeness", _pair(noise), sqnr_text, True)


def _ratios(row: Measured) -> Iterator[tuple[str | None, Ends]]:
    figure = Latency.of(row)
    for phase, ratio in first_ratios(() if figure is None else figure.results):
        yield phase, Ends(ratio.value, ratio.low, ratio.high)


def _metrics(rows: Sequence[Measured]) -> Iterator[Compared]:
    found = [MetricFigure.of(row) for row in rows]
    for name in dict.fromkeys(one.name for one in found if one is not None):
        own = [one if one is not None and one.name == name else None for one in found]
        ends = tuple(None if one is None else Ends(one.value, one.low, one.high) for one in own)
        larger = next(one.larger_is_better for one in own if one is not None)
        yield Compared(name, "metric", _pair(ends), lambda v: f"{v:.4f}", larger)


def _pair(found: Sequence[Ends | None]) -> tuple[Ends | None, Ends | None]:
    first, second = found
    return first, second


def _exact(value: float) -> Ends:
    return Ends(value, value, value)
