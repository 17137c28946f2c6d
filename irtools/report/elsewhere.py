"""Times of another machine in a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TypeVar

from irtools.errors import DataError
from irtools.measure.base import LatencyResult
from irtools.measure.kit import KitTimes, TimedModel
from irtools.report.entries import ReportData
from irtools.words import counted

__all__ = ["elsewhere_lines", "merge_times"]

R = TypeVar("R", bound=ReportData)


def merge_times(report: R, times: KitTimes, name: str) -> R:
    """Return a report with what a kit measured of its result; the same kit and machine replace.

    Args:
        name: What to call the result of the kit in a message.

    Raises:
        DataError: None of the models that the kit timed is the result of the report.
    """
    if not any(_is_result(report, one) for one in times.models):
        timed = ", ".join(one.name for one in times.models)
        raise DataError(
            f"{name} is about other models: {timed} were timed on {times.machine.name}, and none "
            f"of them has the hash of this report's result ({report.result.sha256[:12]})"
        )
    key = (times.kit, times.machine.name)
    others = (one for one in report.elsewhere if (one.kit, one.machine.name) != key)
    return dataclasses.replace(report, elsewhere=(*others, times))


def elsewhere_lines(report: ReportData) -> Iterator[str]:
    """Yield what was measured of the result on other machines, a line for each shape."""
    for times in report.elsewhere:
        machine, runtime = times.machine, times.versions.get("onnxruntime", "")
        where = f"on {machine.name} ({machine.cpu}, {counted(machine.threads, 'thread')}, "
        names = {one.name for one in times.models if _is_result(report, one)}
        for one in times.results:
            if one.name in names:
                yield f"{where}onnxruntime {runtime}): {_latency(one, times.models[0].name)}"


def _is_result(report: ReportData, one: TimedModel) -> bool:
    """Whether a model that was timed is the report's result, or the file that was made of it."""
    written = () if report.artifact is None else report.artifact.files.values()
    return one.sha256 == report.result.sha256 or not set(one.files).isdisjoint(written)


def _latency(one: LatencyResult, first: str) -> str:
    shown = f"{one.median_ms:.2f} ms at {one.shape}"
    if one.speedup is None:
        return shown
    ratio = one.speedup
    noise = "" if ratio.is_significant else " within noise"
    return f"{shown}, {ratio.value:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]{noise} of {first}"
