"""What `irc bench` found out, as a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from irtools.measure.base import LatencyResult
from irtools.pages.blocks import (
    Block,
    Drawing,
    Facts,
    Head,
    HeadLine,
    Lead,
    Remarks,
    Section,
    Table,
)
from irtools.pages.charts import Bar, Estimate, bars, intervals
from irtools.pages.engine import section_page
from irtools.report.bench import FORMAT, Bench, BenchScore, parse_bench
from irtools.report.impossible import refuse_impossible
from irtools.words import size_text

__all__ = ["bench_page"]

_MOST_SHAPES = 12


@refuse_impossible()
def bench_page(document: Mapping[str, Any], name: str) -> str:
    """Return a page on a benchmark.

    Args:
        document: As `bench_document` returns it.
        name: What to call it, such as its file.

    Raises:
        DataError: It is another document, or holds numbers that no run has.
    """
    found = parse_bench(document, name)
    machine = found.machine
    head = Head(
        title=f"{name}: benchmark",
        heading=name,
        lines=(HeadLine(f"{machine.cpu}, {machine.quota} of {machine.cores} CPUs, {machine.isa}"),),
        footer=f"Made by irtools from a benchmark ({FORMAT}).",
    )
    return section_page(head, _sections(found))


def _sections(found: Bench) -> Iterator[Section]:
    yield Section("verdict", "Verdict", tuple(_verdict(found)))
    yield Section("speed", "Speed", tuple(_speed(found)))
    yield Section("models", "Models", (_models(found),))
    yield Section("machine", "Data and machine", tuple(_machine(found)))


def _verdict(found: Bench) -> Iterator[Block]:
    ratios = [one for one in found.results if one.speedup is not None]
    if not ratios:
        yield Lead("No two models were timed against each other.")
        return
    best = max(ratios, key=lambda one: one.speedup.value if one.speedup else 0.0)
    assert best.speedup is not None
    first = found.results[0].name
    shown = f"{best.speedup.value:.2f} [{best.speedup.low:.2f}, {best.speedup.high:.2f}] times"
    if best.speedup.value <= 1 or not best.speedup.is_significant:
        nearest = f"{best.name} comes nearest: {shown} as fast"
        yield Lead(f"Nothing is faster than {first} beyond noise; {nearest}.")
    else:
        where = f" at {best.shape}" if best.shape else ""
        yield Lead(f"{best.name} is {shown} as fast as {first}{where}.")


def _speed(found: Bench) -> Iterator[Block]:
    shapes = list(dict.fromkeys(one.shape for one in found.results))
    for shape in shapes[:_MOST_SHAPES]:
        own = [one for one in found.results if one.shape == shape]
        where = f" at {shape}" if shape else ""
        rated = [_estimate(one) for one in own]
        if len(rated) > 1:
            yield Drawing(intervals(f"Times as fast{where}", rated, base=1.0, unit="x"))
        drawn = [_bar(one) for one in own]
        keys = (("before", "median"), ("after", "p90"), ("third", "p99"))
        yield Drawing(bars(f"Latency{where}", drawn, keys, unit=" ms"))
    yield _times(found.results)


def _estimate(one: LatencyResult) -> Estimate:
    ratio = one.speedup
    if ratio is None:
        return Estimate(one.name, "1.00x", 1.0, 1.0, 1.0, "before")
    noise = "" if ratio.is_significant else ", within noise"
    shown = f"{ratio.value:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]{noise}"
    return Estimate(one.name, shown, ratio.value, ratio.low, ratio.high)


def _bar(one: LatencyResult) -> Bar:
    return Bar(one.name, f"{one.median_ms:.2f} ms", (one.median_ms, one.p90_ms, one.p99_ms))


def _times(results: Sequence[LatencyResult]) -> Table:
    headings: tuple[str, ...] = (
        *("model", "shape", "median", "p90", "p99", "faster", "samples/s", "tok/s"),
        *("load", "peak memory", "runs"),
    )
    rows = [
        (
            one.name,
            one.shape,
            f"{one.median_ms:.3f} ms",
            f"{one.p90_ms:.3f} ms",
            f"{one.p99_ms:.3f} ms",
            "" if one.speedup is None else _estimate(one).shown,
            f"{one.throughput:.1f}",
            "" if one.tokens_per_second is None else f"{one.tokens_per_second:.1f}",
            f"{one.load_seconds:.2f} s",
            size_text(one.peak_bytes),
            str(one.runs),
        )
        for one in results
    ]
    kept = [n for n in range(len(headings)) if any(row[n] for row in rows)]
    shown = [[row[n] for n in kept] for row in rows]
    return Table("Times of one inference", [headings[n] for n in kept], shown)


def _models(found: Bench) -> Table:
    headings: tuple[str, ...] = (
        *("model", "target", "precision", "size", "SQNR", "agreement", "metric"),
        "against the first",
    )
    rows = [
        (
            one.name,
            one.target,
            one.precision or "",
            size_text(one.file_bytes),
            *_closeness(one.fidelity or {}),
            _scored(one.evaluation, ".4f"),
            _scored(one.difference, "+.4f"),
        )
        for one in found.contenders
    ]
    kept = [n for n in range(len(headings)) if any(row[n] for row in rows)]
    shown = [[row[n] for n in kept] for row in rows]
    return Table("What was compared", [headings[n] for n in kept], shown)


def _closeness(found: Mapping[str, Any]) -> tuple[str, str]:
    noise, agreed = found.get("sqnr_db"), found.get("agreement")
    return (
        "" if noise is None else f"{float(noise):.1f} dB",
        "" if agreed is None else f"{100 * float(agreed):.2f} %",
    )


def _scored(found: BenchScore | None, form: str) -> str:
    if found is None:
        return ""
    return f"{found.name} {found.value:{form}} [{found.low:{form}}, {found.high:{form}}]".strip()


def _machine(found: Bench) -> Iterator[Block]:
    machine = found.machine
    data = "" if found.data is None else f"{found.data.get('source')}"
    samples = "" if found.data is None else f"{found.data.get('samples')}"
    yield Facts(
        "Machine",
        (
            ("CPU", machine.cpu),
            ("instruction set", machine.isa),
            ("CPUs", f"{machine.cores}, of which {machine.quota} may be used"),
            ("system", machine.system),
            ("data", data),
            ("samples", samples),
        ),
    )
    yield Facts("Versions", tuple(found.versions.items()))
    if found.notes:
        yield Remarks("Notes", found.notes)
