"""From a report to what trackers show."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from irtools.measure.base import LatencyResult
from irtools.report.document import Report
from irtools.report.entries import Row
from irtools.report.plain import plain_data

__all__ = ["metrics_of", "parameters_of", "tags_of"]

_LATENCY = ("median_ms", "p90_ms", "p99_ms", "throughput", "tokens_per_second", "peak_bytes")
_METRICS = ("metric", "further_metrics")


def parameters_of(report: Report) -> dict[str, str]:
    """Return what decided the result of a run: the pipeline, options of passes, settings."""
    return dict(_parameters(report))


def tags_of(report: Report) -> dict[str, str]:
    """Return what a run ran on: model, data, machine, versions."""
    return dict(_tags(report))


def metrics_of(row: Row) -> dict[str, float]:
    """Return the finite numbers of a row.

    Latency at the first shape has plain names, that at others the shape after them, that of a
    decoder its phase before them: `prefill/median_ms`, `decode/median_ms batch=1 past=512`.
    Figures of other packages are `KEY/FIELD`.
    """
    found = {**dict(_figures(row)), "seconds": sum(row.seconds.values())}
    return {name: float(value) for name, value in found.items() if _is_number(value)}


def _figures(row: Row) -> Iterator[tuple[str, Any]]:
    figures: Mapping[str, Any] = row.figures
    for key, figure in figures.items():
        if key == "latency":
            yield from _latency(figure.results)
        elif key in _METRICS:
            for one in (figure,) if key == "metric" else figure.metrics:
                yield from _interval(one.name, one)
        elif key in ("size", "fidelity"):
            yield from plain_data(figure).items()
        else:
            yield from _flat(key, plain_data(figure))


def _latency(results: tuple[LatencyResult, ...]) -> Iterator[tuple[str, Any]]:
    seen: set[str | None] = set()
    for one in results:
        before = "" if one.phase is None else f"{one.phase}/"
        after = f" {one.shape}" if one.phase in seen else ""
        seen.add(one.phase)
        for field in _LATENCY:
            yield f"{before}{field}{after}", getattr(one, field)
        if one.speedup is not None:
            for name, value in _interval("speedup", one.speedup):
                yield f"{before}{name}{after}", value


def _interval(name: str, figure: Any) -> Iterator[tuple[str, Any]]:
    yield name, figure.value
    yield f"{name}_low", figure.low
    yield f"{name}_high", figure.high


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of plain data, with their path as a name."""
    match value:
        case Mapping():
            for key, inner in value.items():
                yield from _flat(f"{name}/{key}", inner)
        case list():
            for number, inner in enumerate(value):
                yield from _flat(f"{name}/{number}", inner)
        case _:
            yield name, value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _parameters(report: Report) -> Iterator[tuple[str, str]]:
    yield "pipeline", report.pipeline
    for number, one in enumerate(report.passes, 1):
        yield f"pass.{number}", one.text
        for name, value in one.options.items():
            yield f"pass.{number}.{one.name}.{name}", str(value)
    for name, value in plain_data(report.settings).items():
        if value not in (None, [], {}):
            yield name, ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _tags(report: Report) -> Iterator[tuple[str, str]]:
    yield "source", report.model.source
    yield "source.sha256", report.model.sha256
    yield "result.sha256", report.result.sha256
    for name, data in (("calibration", report.calibration), ("evaluation", report.evaluation)):
        if data is not None:
            yield name, f"{data.source} ({data.samples} samples, {data.sha256})"
    yield "runtime", report.target.runtime
    yield "isa", report.machine.isa
    yield "cpu", report.machine.cpu
    for name, version in report.versions.items():
        yield f"version.{name}", version
