"""Figures of quality: closeness to the original, and the task metric."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from irtools.measure.figures import Column, Figure, Level, Measured, Verdict
from irtools.metrics import Evaluation, Fidelity
from irtools.words import counted, sqnr_text

__all__ = ["FidelityFigure", "FurtherMetrics", "MetricFigure"]

_LOW_SQNR_DB = 20.0
_ENOUGH_SQNR_DB = 40.0
"""Above it finer weights change little: an answer that differs had another next to it."""
_LOW_AGREEMENT = 0.99


def _marked(inherited: bool, shown: str) -> str:
    """Mark a figure that is that of the model before."""
    return f"= {shown}" if inherited else shown


def _sqnr(figure: FidelityFigure, original: FidelityFigure | None) -> str:
    value = figure.sqnr_db
    shown = sqnr_text(value) if value == value else "no equal sizes"
    return _marked(figure.inherited, shown)


def _agreement(figure: FidelityFigure, original: FidelityFigure | None) -> str:
    if figure.agreement is None:
        return ""
    return _marked(figure.inherited, f"{100 * figure.agreement:.2f} %")


def _equal_sizes(figure: FidelityFigure, original: FidelityFigure | None) -> str:
    return "" if figure.same_shape is None else f"{100 * figure.same_shape:.1f} %"


def _metric(figure: MetricFigure, original: MetricFigure | None) -> str:
    shown = f"{figure.value:.4f} [{figure.low:.4f}, {figure.high:.4f}]"
    if original is not None and figure.samples < original.samples:
        shown += f" n={figure.samples}"
    return _marked(figure.inherited, shown)


@dataclass(frozen=True)
class MetricFigure(Evaluation, Figure):
    """A task metric with its confidence interval.

    Attributes:
        inherited: It is that of the model before, whose function the pass keeps.
    """

    key: ClassVar[str] = "metric"
    rank: ClassVar[int] = 50
    columns: ClassVar[tuple[Column, ...]] = (Column("metric", _metric),)

    inherited: bool = False

    @classmethod
    def summary(cls, rows: Sequence[Measured]) -> Iterator[str]:
        first, last = cls.of(rows[0]), cls.of(rows[-1])
        if first is not None and last is not None:
            yield f"{last.name} {last.value:.4f} ({last.value - first.value:+.4f})"

    @classmethod
    def legend(cls, report: Any) -> Iterator[str]:
        last = cls.of(report.rows[-1])
        if last is not None:
            yield f"metric: {last.name} on {counted(last.samples, 'sample')}, 95 % interval"


def _further(figure: FurtherMetrics, original: FurtherMetrics | None) -> str:
    return "; ".join(f"{one.name} {_metric(one, None)}" for one in figure.metrics)


@dataclass(frozen=True)
class FurtherMetrics(Figure):
    """Metrics besides the main one.

    Attributes:
        metrics: One for each.
    """

    key: ClassVar[str] = "further_metrics"
    rank: ClassVar[int] = 51
    columns: ClassVar[tuple[Column, ...]] = (Column("further metrics", _further),)

    metrics: tuple[MetricFigure, ...]


@dataclass(frozen=True)
class FidelityFigure(Fidelity, Figure):
    """Closeness to the original, of the output that suffers most.

    Attributes:
        inherited: It is that of the model before, whose function the pass keeps.
    """

    key: ClassVar[str] = "fidelity"
    rank: ClassVar[int] = 40
    columns: ClassVar[tuple[Column, ...]] = (
        Column("SQNR", _sqnr),
        Column("agreement", _agreement),
        Column("equal sizes", _equal_sizes),
    )

    inherited: bool = False

    @classmethod
    def verdicts(cls, rows: Sequence[Measured]) -> Iterator[Verdict]:
        figure, has_metric = cls.of(rows[-1]), MetricFigure.of(rows[-1]) is not None
        if figure is None:
            return
        if figure.nonfinite:
            yield Verdict(
                Level.WARNING,
                f"NaN or infinite on one side only: {counted(figure.nonfinite, 'output value')}",
            )
        agreement = figure.agreement
        if has_metric:
            return
        low = agreement is not None and agreement < _LOW_AGREEMENT
        if agreement is not None and low and _is_own(cls.of(rows[0]), figure):
            yield Verdict(
                Level.WARNING,
                f"agreement with exact float32 is {100 * agreement:.2f} %, no lower than before "
                "any pass: the runtime itself rounds so",
            )
        elif agreement is not None and low:
            yield Verdict(
                Level.WARNING,
                f"agreement with the original is {100 * agreement:.2f} %"
                f"{_also(figure)}; check the task metric with --evaluate, or set a budget with "
                "--max-drop",
            )
            if figure.sqnr_db < _ENOUGH_SQNR_DB:
                yield from _remedies(rows, lambda found: (found.agreement or 0) < _LOW_AGREEMENT)
        elif figure.sqnr_db < _LOW_SQNR_DB:
            yield Verdict(
                Level.WARNING,
                f"the signal-to-noise ratio against the original is {figure.sqnr_db:.1f} dB, below "
                f"{_LOW_SQNR_DB:.0f} dB",
            )
            yield from _remedies(rows, lambda found: found.sqnr_db < _LOW_SQNR_DB)

    @classmethod
    def legend(cls, report: Any) -> Iterator[str]:
        last = cls.of(report.rows[-1])
        if last is None:
            return
        what = "SQNR" if last.agreement is None else "SQNR, agreement"
        yield f"{what}: {counted(last.samples, 'sample')} of {_source(report)}"
        if any(figure.inherited for row in report.rows if (figure := cls.of(row))):
            yield "=: of the model before, whose function the pass keeps"
        if last.same_shape is not None:
            yield (
                "equal sizes: samples whose outputs have the original's sizes, which the data "
                "decides; SQNR is over outputs of equal size"
            )
        if report.target.precision != "float32":
            yield (
                f"against the original in exact float32; this runtime computes in "
                f"{report.target.precision} by default, so the original's own row is not equal"
            )


def _also(figure: FidelityFigure) -> str:
    """Say what is low next to the agreement, or that nothing is but distances of scores."""
    if figure.sqnr_db >= _ENOUGH_SQNR_DB:
        return (
            f", though the outputs keep {sqnr_text(figure.sqnr_db)}: scores that are nearly equal "
            "swap places"
        )
    if not figure.sqnr_db < _LOW_SQNR_DB:
        return ""
    return f", the signal-to-noise ratio {figure.sqnr_db:.1f} dB"


def _is_own(first: FidelityFigure | None, last: FidelityFigure) -> bool:
    """Whether the original on its target already agrees with itself no better than the result."""
    if first is None or first is last or first.agreement is None or last.agreement is None:
        return False
    return first.agreement <= last.agreement


def _source(report: Any) -> str:
    data = report.evaluation
    return "synthetic data" if data is None else str(data.source)


def _remedies(
    rows: Sequence[Measured], is_low: Callable[[FidelityFigure], bool]
) -> Iterator[Verdict]:
    """Say what the pass that lowered the figure would try."""
    found = ((row, FidelityFigure.of(row)) for row in rows)
    low = next((row for row, figure in found if figure is not None and is_low(figure)), None)
    if low is not None and low.remedies:
        name = low.text.partition(":")[0]
        yield Verdict(Level.NOTE, f"{name} may keep more with {'; or '.join(low.remedies)}")
