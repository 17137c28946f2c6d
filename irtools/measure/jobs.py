"""What a child process does: load a model, run it, time it.

Imports nothing but numpy and the target's runtime, so that a fresh process costs little time and
its peak memory is the model's.
"""

from __future__ import annotations

import gc
import importlib
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irtools.errors import IrtoolsError
from irtools.measure.generate import write_greedily
from irtools.measure.memory import peak_memory
from irtools.measure.steps import TimedStep, step_of
from irtools.targets import Feeds, RunnerOptions, Target, find_target

if TYPE_CHECKING:
    from irtools.analysis.decoder import TextDecoder
    from irtools.targets import Runner

__all__ = [
    "describe_inputs",
    "fewest_runs",
    "profile_nodes",
    "report_kernels",
    "run_first",
    "run_once",
    "run_several",
    "time_block",
    "time_several",
    "warm_up",
    "write_text",
]

_MIN_RUNS = 3
_FEW_SECONDS = 3.0
"""What the fewest runs of a block may take: three of a second, one of three seconds."""
_LONG_SECONDS = 5.0
"""A run that takes longer is its own warm-up: what is done once is little next to it."""


def warm_up(target: str) -> None:
    """Import what a job for a target needs: its runtime, above all."""
    importlib.import_module("irtools.measure.trial")
    find_target(target).version()


def run_once(path: Path, target: str, options: RunnerOptions, feeds: Feeds | None) -> Any:
    """Load a model and, with feeds, run it once. Returns its outputs by name."""
    with find_target(target).runner(path, options) as runner:
        return None if feeds is None else runner.run(feeds)


def run_several(
    path: Path, target: str | Target, options: RunnerOptions, feeds: Sequence[Feeds]
) -> list[Any]:
    """Load a model and run it on each of `feeds`. Returns the outputs by name, run by run."""
    found = find_target(target) if isinstance(target, str) else target
    with found.runner(path, options) as runner:
        return [runner.run(one) for one in feeds]


def run_first(path: Path, target: str, options: RunnerOptions, feeds: Feeds) -> dict[str, float]:
    """Load a model and run it once.

    Returns:
        Seconds of `load` and of the `first` inference, and `peak_bytes` of the process.
    """
    found = find_target(target)
    found.version()  # Imports the runtime, which no request of a server waits for.
    found.as_run(path)  # Looks into the file, as no server does.
    start = time.perf_counter()
    with found.runner(path, options) as runner:
        loaded = time.perf_counter()
        runner.run(feeds)
        first = time.perf_counter() - loaded
        return {"load": loaded - start, "first": first, "peak_bytes": peak_memory()}


def describe_inputs(path: Path, target: str) -> list[dict[str, Any]]:
    """Load a model and return `name`, `dtype` and `shape` of what it must be fed."""
    with find_target(target).runner(path, RunnerOptions()) as runner:
        return [
            {
                "name": slot.name,
                "dtype": None if slot.dtype is None else slot.dtype.name,
                "shape": None if slot.shape is None else list(slot.shape),
            }
            for slot in runner.slots
            if slot.required
        ]


def profile_nodes(
    path: Path, target: str, options: RunnerOptions, feeds: Feeds, runs: int
) -> dict[str, Any]:
    """Load a model and time its nodes; returns the fields of `NodeTimes`."""
    times = find_target(target).profile(path, feeds, runs, options)
    return {
        "names": list(times.names),
        "ops": list(times.ops),
        "microseconds": times.microseconds,
        "totals": times.totals,
    }


def report_kernels(path: Path, target: str, options: RunnerOptions) -> dict[str, Any]:
    """Compile a model and count kernels; returns the fields of `KernelReport`."""
    found = find_target(target).kernels(path, options)
    return {
        "counts": dict(found.counts),
        "int8": found.int8,
        "float_fallbacks": list(found.float_fallbacks),
        "fused_attention": found.fused_attention,
        "providers": dict(found.providers),
    }


def write_text(
    path: Path,
    target: str,
    options: RunnerOptions,
    decoder: TextDecoder,
    prompts: np.ndarray,
    new_tokens: int,
    seconds: float = float("inf"),
    least: int = 1,
) -> dict[str, np.ndarray]:
    """Load a decoder and continue prompts, as `write_greedily`; returns the fields of `Writing`.

    Nothing is timed here, so a decoder of gigabytes is not copied into another layout first.
    """
    with find_target(target).runner(path, replace(options, frugal=True)) as runner:
        found = write_greedily(runner, decoder, prompts, new_tokens, seconds, least)
        return {"tokens": found.tokens, "margins": found.margins}


def time_block(
    path: Path,
    target: str,
    options: RunnerOptions,
    feeds: Sequence[Sequence[Feeds]],
    seconds: Sequence[float],
) -> dict[str, Any]:
    """Load a model and time it on each of `feeds`.

    Args:
        path: The model.
        target: What runs it, as target text.
        options: How.
        feeds: Per shape those that take turns; every run takes the next one.
        seconds: Warm-up time and timed time of each shape.

    Returns:
        `load_seconds`, `first_seconds` of the first inference, `peak_bytes`, and `times`: for each
        shape the seconds of every run.
    """
    found = find_target(target)
    found.version()  # Imports the runtime, which no request of a server waits for.
    found.as_run(path)  # Looks into the file, as no server does.
    start = time.perf_counter()
    with found.runner(path, options) as runner:
        load = time.perf_counter() - start
        warm_up, timed = seconds
        gc.disable()
        blocks = [_time_runs(runner, turns, warm_up, timed) for turns in feeds]
        return {
            "load_seconds": load,
            "first_seconds": blocks[0][0],
            "peak_bytes": peak_memory(),
            "times": [times for _, times in blocks],
        }


def time_several(
    paths: Sequence[Path],
    target: str,
    options: RunnerOptions,
    feeds: Sequence[Feeds],
    block: float,
    seconds: float,
) -> list[float]:
    """Load and time models one after the other, forwards and then backwards.

    Args:
        paths: The models.
        target: What runs them, as target text.
        options: How.
        feeds: Of each.
        block: Seconds for each model and sweep, after as many to warm up.
        seconds: After so many nothing further is begun.

    Returns:
        Seconds of a run, the better median of both sweeps; NaN for what the target refuses and
        what was not begun.
    """
    found = find_target(target)
    found.version()
    best, end = [math.nan] * len(paths), time.perf_counter() + seconds
    order = list(range(len(paths)))
    gc.disable()
    for at in (*order, *reversed(order)):
        if time.perf_counter() > end:
            break
        try:
            with found.runner(paths[at], options) as runner:
                _, times = _time_runs(runner, [feeds[at]], block, block)
        except IrtoolsError:
            continue
        best[at] = float(np.nanmin([best[at], float(np.median(times))]))
    return best


def _time_runs(
    runner: Runner, turns: Sequence[Feeds], warm_up: float, timed: float
) -> tuple[float, np.ndarray]:
    """Return the seconds of the first run, and of every timed one."""
    # One run warms up a model that needs seconds for it; the median is safe from a second cold one.
    steps = [step_of(runner, feeds) for feeds in turns]
    first, *others = _repeat(steps, warm_up, 1)
    if first > _LONG_SECONDS:
        return first, np.array([first, *others])
    return first, np.array(_repeat(steps, timed, fewest_runs(first)))


def fewest_runs(seconds: float) -> int:
    """Return how many runs a block has at least, where one takes so many seconds."""
    return max(1, min(_MIN_RUNS, int(_FEW_SECONDS / max(seconds, 1e-9))))


def _repeat(steps: Sequence[TimedStep], seconds: float, least: int) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < max(least, len(steps)):
        step = steps[len(times) % len(steps)]
        step.prepare()
        start = time.perf_counter()
        step.run()
        times.append(time.perf_counter() - start)
    return times
