"""What a child process does: load a model, run it, time it.

Imports nothing but numpy and the target's runtime, so that a fresh process costs little time and
its peak memory is the model's.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irtools.target import Feeds, RunnerOptions, find_target

if TYPE_CHECKING:
    from irtools.target import Runner

__all__ = ["run_once", "time_block"]

_MIN_RUNS = 3


def run_once(path: Path, target: str, options: RunnerOptions, feeds: Feeds | None) -> Any:
    """Load a model and, with feeds, run it once. Returns its outputs by name."""
    with find_target(target).runner(path, options) as runner:
        return None if feeds is None else runner.run(feeds)


def time_block(
    path: Path,
    target: str,
    options: RunnerOptions,
    feeds: Sequence[Feeds],
    seconds: Sequence[float],
) -> dict[str, Any]:
    """Load a model and time it on each of `feeds`.

    Args:
        path: The model.
        target: What runs it, as target text.
        options: How.
        feeds: One per shape.
        seconds: Warm-up time and timed time of each shape.

    Returns:
        `load_seconds`, `peak_bytes`, and `times`: for each shape the seconds of every run.
    """
    start = time.perf_counter()
    with find_target(target).runner(path, options) as runner:
        load = time.perf_counter() - start
        warm_up, timed = seconds
        gc.disable()
        times = [_time_runs(runner, feed, warm_up, timed) for feed in feeds]
        return {"load_seconds": load, "peak_bytes": peak_memory(), "times": times}


def peak_memory() -> int:
    """Return the peak resident memory of this process in bytes; nothing is subtracted.

    Not `ru_maxrss`, where there is better: Linux hands that down from the parent, whose peak
    would hide the child's.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _time_runs(runner: Runner, feeds: Feeds, warm_up: float, timed: float) -> np.ndarray:
    _repeat(runner, feeds, warm_up)
    return np.array(_repeat(runner, feeds, timed))


def _repeat(runner: Runner, feeds: Feeds, seconds: float) -> list[float]:
    times: list[float] = []
    now = time.perf_counter()
    end = now + seconds
    while now < end or len(times) < _MIN_RUNS:
        runner.run(feeds)
        after = time.perf_counter()
        times.append(after - now)
        now = after
    return times
