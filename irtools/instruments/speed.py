"""The figure of latency, and how two of them compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from irtools.measure.base import LatencyResult, Ratio
from irtools.measure.figures import Column, Figure, Level, Measured, Verdict

__all__ = ["Latency", "first_ratios", "is_slower"]


def first_ratios(results: Sequence[LatencyResult]) -> Iterator[tuple[str | None, Ratio]]:
    """Yield the ratio at the first shape; of a decoder that of each phase."""
    for phase in dict.fromkeys(result.phase for result in results):
        yield phase, _ratio_of(_first_of(results, phase))


def is_slower(before: Sequence[LatencyResult], after: Sequence[LatencyResult]) -> bool:
    """Whether a model is slower than the one before it, beyond noise, at the first shape.

    A decoder that lost time on prompts and gained some on the tokens after them, or the other way
    round, is not slower. Both models were timed against the original; the original itself has no
    ratio and counts as 1.
    """
    found = [(_ratio_of(_first_of(before, phase)), new) for phase, new in first_ratios(after)]
    return any(new.high < old.low for old, new in found) and not any(
        new.low > old.high for old, new in found
    )


def _first_of(results: Sequence[LatencyResult], phase: str | None) -> LatencyResult | None:
    return next((result for result in results if result.phase == phase), None)


def _ratio_of(result: LatencyResult | None) -> Ratio:
    ratio = None if result is None else result.speedup
    return Ratio(1.0, 1.0, 1.0) if ratio is None else ratio


def _time(figure: Latency, original: Latency | None) -> str:
    found = _first_of(figure.results, None)
    return "" if found is None else f"{found.median_ms:.2f} ms"


def _speed(figure: Latency, original: Latency | None) -> str:
    found = _first_of(figure.results, None)
    return "" if found is None or found.speedup is None else _ratio_text(found.speedup)


def _ratio_text(ratio: Ratio) -> str:
    shown = f"{ratio.value:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]"
    return shown if ratio.is_significant else f"{shown} within noise"


def _tokens(phase: str, figure: Latency, original: Latency | None) -> str:
    """Return the tokens per second of a decoder, and how they compare with the original's."""
    found = _first_of(figure.results, phase)
    if found is None or found.tokens_per_second is None:
        return ""
    rate = found.tokens_per_second
    shown = f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}"
    return shown if found.speedup is None else f"{shown}  {_ratio_text(found.speedup)}"


@dataclass(frozen=True)
class Latency(Figure):
    """Latency relative to the original.

    Attributes:
        results: One per shape, of a decoder with a cache one per prompt length and one per length
            of the cache; `speedup` is against the original.
    """

    key: ClassVar[str] = "latency"
    rank: ClassVar[int] = 30
    headline: ClassVar[int] = 0
    columns: ClassVar[tuple[Column, ...]] = (
        Column("latency", _time),
        Column("faster", _speed),
        Column("prefill tok/s", partial(_tokens, "prefill")),
        Column("decode tok/s", partial(_tokens, "decode")),
    )

    results: tuple[LatencyResult, ...]

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[LatencyResult]:
        return iter(self.results)

    def __getitem__(self, index: int) -> LatencyResult:
        return self.results[index]

    @classmethod
    def verdicts(cls, rows: Sequence[Measured]) -> Iterator[Verdict]:
        last: Sequence[LatencyResult] = ()
        for row in rows[1:]:
            figure = cls.of(row)
            if figure is None:
                continue
            if row.modified and is_slower(last, figure.results):
                name = row.text.partition(":")[0]
                yield Verdict(Level.WARNING, f"{name} made the model slower than it was before it")
            last = figure.results
        figure = cls.of(rows[-1])
        for phase, ratio in first_ratios(() if figure is None else figure.results):
            if ratio.is_significant and ratio.value <= 1:
                yield Verdict(
                    Level.WARNING,
                    f"the result is slower than the original{_in(phase)}: {ratio.value:.2f}x "
                    f"[{ratio.low:.2f}, {ratio.high:.2f}]",
                )

    @classmethod
    def summary(cls, rows: Sequence[Measured]) -> Iterator[str]:
        figure = cls.of(rows[-1])
        for phase, ratio in first_ratios(() if figure is None else figure.results):
            if not ratio.is_significant:
                yield f"as fast as the original{_in(phase)}, within noise"
            elif ratio.value > 1:
                interval = f"[{ratio.low:.2f}, {ratio.high:.2f}]"
                yield f"{ratio.value:.2f}x faster{_in(phase)} {interval}"

    @classmethod
    def legend(cls, report: Any) -> Iterator[str]:
        figure = cls.of(report.rows[-1])
        if figure is None or report.bench is None:
            return
        firsts = [_first_of(figure.results, phase) for phase in (None, "prefill", "decode")]
        shapes = " and ".join(found.shape for found in firsts if found is not None)
        what = "tok/s: tokens per second" if firsts[0] is None else "latency: median"
        yield f"{what} at {shapes}, {100 * report.bench.confidence:.0f} % interval"


def _in(phase: str | None) -> str:
    return "" if phase is None else f" in {phase}"
