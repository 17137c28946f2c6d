"""What goals are decided by, from the figures of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from irtools.goals import Goals, Interval, Observed
from irtools.instruments import Judge, Latency, Size
from irtools.measure.base import LatencyResult
from irtools.measure.interval import student_t
from irtools.passmanager import Step

__all__ = ["observe_step", "slowest_phase"]


def observe_step(steps: Sequence[Step], judge: Judge | None, goals: Goals) -> Observed:
    """Return the figures of the last model of a run, next to the original's.

    Args:
        judge: What metrics and losses are measured by, where goals are about them.
    """
    first, last = steps[0], steps[-1]
    result: dict[str, Interval] = {}
    original: dict[str, Interval] = {}
    if judge is not None and goals.needing("data"):
        seen = judge.observe(last.model)
        result |= seen.result
        original |= seen.original
    for figures, step in ((result, last), (original, first)):
        if (size := step.figures.get(Size)) is not None:
            figures["size"] = Interval.exact(size.file_bytes)
    times, base = (step.figures.get(Latency) for step in (last, first))
    if times is not None and base is not None:
        result |= _times(times.results, base.results)
        original |= _base_times(times.results, base.results)
    return Observed(result, original)


def _times(
    results: Sequence[LatencyResult], base: Sequence[LatencyResult]
) -> Mapping[str, Interval]:
    """Return speed, latency and memory at the first shape; of a decoder its slower phase."""
    slowest = slowest_phase(results)
    ratio = slowest.speedup
    speed = Interval.exact(1.0) if ratio is None else Interval(ratio.value, ratio.low, ratio.high)
    memory = max(result.peak_bytes for result in results)
    return {"speedup": speed, "latency": _latency(slowest), "memory": Interval.exact(memory)}


def _base_times(
    results: Sequence[LatencyResult], base: Sequence[LatencyResult]
) -> Mapping[str, Interval]:
    slowest = slowest_phase(results)
    ratio = 1.0 if slowest.speedup is None else slowest.speedup.value
    memory = max(result.peak_bytes for result in base)
    # The original is timed again with every model: what this one was compared with.
    return {
        "speedup": Interval.exact(1.0),
        "latency": Interval.exact(slowest.median_ms * ratio),
        "memory": Interval.exact(memory),
    }


def slowest_phase(results: Sequence[LatencyResult]) -> LatencyResult:
    """Return the result at the first shape; of a decoder that of the phase that gained least."""
    firsts = {result.phase: result for result in reversed(results)}
    return min(firsts.values(), key=lambda r: 1.0 if r.speedup is None else r.speedup.value)


def _latency(result: LatencyResult) -> Interval:
    """Return the latency with Student's interval of its blocks, on a logarithmic scale."""
    logs = np.log(np.asarray(result.block_medians_ms or (result.median_ms,)))
    if len(logs) < 2:
        return Interval.exact(result.median_ms)
    error = float(logs.std(ddof=1)) / math.sqrt(len(logs))
    reach = math.exp(student_t(0.95, len(logs) - 1) * error)
    return Interval(result.median_ms, result.median_ms / reach, result.median_ms * reach)
