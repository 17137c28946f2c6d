"""How fast: every shape, round by round, and over the length of the context."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from irtools.instruments import FirstRun, Latency
from irtools.measure.base import LatencyResult
from irtools.pages.blocks import Block, Drawing, Hint, Paragraph, Section, Table
from irtools.pages.charts import Bar, Chart, Series, bars, lines
from irtools.report.document import Report
from irtools.report.elsewhere import elsewhere_lines
from irtools.report.entries import ReportData
from irtools.words import size_text

__all__ = ["speed"]

_MOST_SHAPES = 4
_LENGTH = re.compile(r"(?:sequence|past)=(\d+)")
_HEADINGS: tuple[str, ...] = (
    *("pass", "shape", "median", "p90", "p99", "mean", "faster", "samples/s", "tok/s"),
    *("load", "first inference", "peak memory", "runs"),
)


def speed(report: Report) -> Section:
    """Return the section."""
    timed = list(_timed(report))
    elsewhere = [Paragraph(line) for line in elsewhere_lines(report)]
    if not timed:
        return Section("speed", "Speed", (*elsewhere, Hint(_missing(report))))
    blocks: list[Block] = [Drawing(chart) for chart in _rounds(report)]
    blocks += [Drawing(chart) for chart in _over_length(report)]
    blocks += [Drawing(chart) for chart in _first_runs(report)]
    rows = [(name, *_cells(result)) for name, result in timed]
    kept = [n for n in range(len(_HEADINGS)) if any(row[n] for row in rows)]
    blocks.append(
        Table(
            "Times of one inference",
            [_HEADINGS[n] for n in kept],
            [[row[n] for n in kept] for row in rows],
        )
    )
    if report.bench is not None:
        blocks.append(Paragraph(_method(report)))
    if not any(FirstRun.of(row) for row in report.rows):
        blocks.append(Hint("--figures first-run adds the time until the first answer."))
    return Section("speed", "Speed", (*blocks, *elsewhere))


def _missing(report: ReportData) -> str:
    if report.bench is None:
        return "Nothing was timed: the benchmark was switched off (--no-bench, --bench none)."
    return (
        "Nothing was timed here: `irc bench --kit` makes a kit that times the model on its own "
        "machine, and irc report --merge adds its result."
    )


def _timed(report: ReportData) -> Iterator[tuple[str, LatencyResult]]:
    for row in report.rows:
        figure = Latency.of(row)
        yield from ((row.text, result) for result in (() if figure is None else figure.results))


def _cells(result: LatencyResult) -> Sequence[str]:
    ratio = result.speedup
    return (
        result.shape,
        f"{result.median_ms:.2f} ms",
        f"{result.p90_ms:.2f} ms",
        f"{result.p99_ms:.2f} ms",
        f"{result.mean_ms:.2f} ms" if result.mean_ms else "",
        "" if ratio is None else f"{ratio.value:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]",
        f"{result.throughput:.1f}",
        "" if result.tokens_per_second is None else f"{result.tokens_per_second:.1f}",
        f"{result.load_seconds:.2f} s",
        f"{1000 * result.first_seconds:.1f} ms" if result.first_seconds else "",
        size_text(result.peak_bytes),
        str(result.runs),
    )


def _method(report: ReportData) -> str:
    assert report.bench is not None
    confidence = 100 * report.bench.confidence
    return (
        f"Two models are timed in blocks that alternate, one process at a time, so that another "
        f"load of the machine meets both; the interval of a ratio is at {confidence:.0f} %. "
        f"Threads: {report.bench.threads or 'the CPU quota'}."
    )


def _ends(report: ReportData) -> tuple[Sequence[LatencyResult], Sequence[LatencyResult]]:
    first, last = Latency.of(report.rows[0]), Latency.of(report.rows[-1])
    return (() if first is None else first.results), (() if last is None else last.results)


def _rounds(report: ReportData) -> Iterator[Chart]:
    """Yield for each shape the medians of the blocks of the original and of the result."""
    before, after = _ends(report)
    if before is after or report.rows[0] is report.rows[-1]:
        return
    there = {result.shape: result for result in before}
    for result in [one for one in after if one.shape in there][:_MOST_SHAPES]:
        found = (
            _series("before", "original", there[result.shape]),
            _series("after", "result", result),
        )
        yield lines(
            f"Round by round at {result.shape}",
            found,
            unit=" ms",
            across="rounds, in the order in which they ran",
            note="Median of each block of runs.",
        )


def _series(kind: str, name: str, result: LatencyResult) -> Series:
    titles = tuple(
        f"{name}, round {n}: {value:.3f} ms" for n, value in enumerate(result.block_medians_ms, 1)
    )
    return Series(kind, name, result.block_medians_ms, titles)


def _over_length(report: ReportData) -> Iterator[Chart]:
    """Yield of a decoder the tokens per second over the length of its prompt or cache."""
    before, after = _ends(report)
    for phase in ("prefill", "decode"):
        there = {result.shape: result for result in before if result.phase == phase}
        both = [(there.get(one.shape), one) for one in after if one.phase == phase]
        if len(both) < 2:
            continue
        found = tuple(
            _rates(kind, name, [pair[which] for pair in both])
            for which, (kind, name) in enumerate((("before", "original"), ("after", "result")))
        )
        shapes = ", ".join(_length(one.shape) for _, one in both)
        yield lines(f"Tokens per second in {phase}", found, across=f"length: {shapes}")


def _rates(kind: str, name: str, results: Sequence[LatencyResult | None]) -> Series:
    values = tuple(None if one is None else one.tokens_per_second for one in results)
    titles = tuple(
        "" if one is None else f"{name} at {one.shape}: {one.tokens_per_second or 0:.1f} tok/s"
        for one in results
    )
    return Series(kind, name, values, titles)


def _length(shape: str) -> str:
    found = _LENGTH.search(shape)
    return found[1] if found else shape


def _first_runs(report: ReportData) -> Iterator[Chart]:
    first, last = FirstRun.of(report.rows[0]), FirstRun.of(report.rows[-1])
    if first is None or last is None or first is last:
        return
    found = [
        Bar(name, f"{b:.3f} s → {a:.3f} s", (b, a))
        for name, b, a in (
            ("loading and compiling", first.load_seconds, last.load_seconds),
            ("the first inference", first.first_seconds, last.first_seconds),
        )
    ]
    keys = (("before", "original"), ("after", "result"))
    yield bars("Until the first answer", found, keys, unit=" s")
