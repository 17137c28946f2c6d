"""Timing models against each other.

Two sessions in one process on few cores steal from each other: a runtime's workers spin after
a run, and a model that needs 10 ms was seen to need 15 next to another. So every block of runs
gets a process of its own and one process is alive at a time. The contenders take turns in short
blocks and swap places from round to round, so that a slow minute of the machine, a warm cache or
an unlucky placement in memory hits all of them and not one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from irtools.analysis.decoder import reading_of
from irtools.errors import UsageError
from irtools.files import scratch_folder
from irtools.measure.base import BenchSettings, LatencyResult, Ratio
from irtools.measure.cpu import cpu_quota
from irtools.measure.interval import speedup
from irtools.measure.jobs import time_block
from irtools.measure.own_machine import refuse_foreign
from irtools.measure.sandbox import ChildLimits, run_isolated
from irtools.targets import Feeds, RunnerOptions, find_target

if TYPE_CHECKING:
    from irtools.model import Model
    from irtools.plugins import Progress

__all__ = ["Contender", "Samples", "latency_result", "measure", "rotated", "told_of_few_runs"]

_MIN_ROUNDS = 3
_MAX_ROUNDS = 8
_FEWEST_ROUNDS = 2
"""Of models whose rounds take far longer than the whole comparison may: fewer have no interval."""
_PATIENCE = (3.0, 30.0)
"""Times `max_seconds`, and least seconds, after which these are enough."""
_WARM_UP_SHARE = 0.4


@dataclass(frozen=True)
class Contender:
    """A model and what runs it.

    Attributes:
        model: A file as a runtime takes it, or a model, which is then written to a temporary one.
        target: What runs it, as target text.
        options: How. Threads are set by the settings where they are None here.
    """

    model: Model | Path
    target: str
    options: RunnerOptions = field(default_factory=RunnerOptions)


@dataclass
class Samples:
    """What was measured of one contender: seconds of every run, by shape and round."""

    times: dict[str, list[np.ndarray]]
    turns: dict[str, int]
    loads: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)

    def medians(self, shape: str) -> list[float]:
        return [_typical(block, self.turns[shape]) for block in self.times[shape]]


def _typical(block: np.ndarray, turns: int) -> float:
    """Median of the runs; with several alternating samples, mean over samples of their medians."""
    return float(np.mean([np.median(block[sample::turns]) for sample in range(turns)]))


def measure(
    contenders: Mapping[str, Contender],
    feeds_by_shape: Mapping[str, Feeds | Sequence[Feeds]],
    settings: BenchSettings = BenchSettings(),
    progress: Progress | None = None,
) -> list[LatencyResult]:
    """Time contenders against the first of them.

    After `settings.rounds` rounds more are run, up to twice as many or 8 in all, while an interval
    is wider than `settings.width` to either side. Width decides, never the verdict: stopping when a
    difference looks real would find differences that are not, while an interval of fixed width
    keeps its level (Chow and Robbins 1965), nearly so after few rounds. `settings.max_seconds`
    ends the measuring, but never before three rounds, or before two where these take three times
    as long: of a model that needs many seconds for a run. Its blocks are single runs.

    Args:
        contenders: Name to contender; the first is the baseline.
        feeds_by_shape: Label of a shape (`batch=1 sequence=128`) to feeds. Several feeds take
            turns, run by run: for models whose time depends on the sample.
        settings: How to time.
        progress: Where to report progress.

    Returns:
        One result per shape and contender, in the order given.

    Raises:
        UsageError: Nothing to time, a setting out of range, or a target of another machine.
        UnsupportedError: A runtime refuses a model, or crashes on it.
        LimitError: A block does not end.
    """
    _check(contenders, feeds_by_shape, settings)
    turns = {
        shape: [feeds] if isinstance(feeds, Mapping) else list(feeds)
        for shape, feeds in feeds_by_shape.items()
    }
    counts = {shape: len(feeds) for shape, feeds in turns.items()}
    samples = {name: Samples({shape: [] for shape in turns}, counts) for name in contenders}
    with scratch_folder("bench") as folder:
        ready = _prepare(contenders, settings, folder)
        for number in _rounds(samples, settings, time.monotonic()):
            if progress is not None:
                progress.step("benchmark", number, settings.rounds)
            for name in rotated(list(ready), number):
                _run_block(name, ready[name], turns, settings, samples[name])
    return [
        latency_result(name, shape, feeds[0], samples, settings)
        for shape, feeds in turns.items()
        for name in contenders
    ]


def _check(
    contenders: Mapping[str, Contender],
    feeds: Mapping[str, Feeds | Sequence[Feeds]],
    settings: BenchSettings,
) -> None:
    if not contenders or not feeds or any(not len(f) for f in _several(feeds)):
        raise UsageError("nothing to time: give at least one contender and one shape")
    if settings.rounds < _MIN_ROUNDS:
        raise UsageError(f"rounds is {settings.rounds}, expected 3 or more for an interval")
    if not 0 < settings.confidence < 1:
        raise UsageError(f"confidence is {settings.confidence}, expected a number between 0 and 1")
    if settings.threads is not None and settings.threads < 1:
        raise UsageError(f"threads is {settings.threads}, expected 1 or more")
    for text in dict.fromkeys(contender.target for contender in contenders.values()):
        refuse_foreign(find_target(text, check=False), "the benchmark")


def _several(feeds: Mapping[str, Feeds | Sequence[Feeds]]) -> list[Sequence[Feeds]]:
    return [turns for turns in feeds.values() if not isinstance(turns, Mapping)]


def _prepare(
    contenders: Mapping[str, Contender], settings: BenchSettings, folder: Path
) -> dict[str, Contender]:
    threads = settings.threads or cpu_quota()
    ready = {}
    for index, (name, contender) in enumerate(contenders.items()):
        model = contender.model
        if not isinstance(model, Path):
            path = folder / f"{index}.onnx"
            model.save(path)
            model = path
        options = replace(contender.options, threads=contender.options.threads or threads)
        ready[name] = replace(contender, model=model.absolute(), options=options)
    return ready


def _rounds(samples: Mapping[str, Samples], settings: BenchSettings, begun: float) -> Iterator[int]:
    times, least = _PATIENCE
    enough = max(least, times * settings.max_seconds)
    for number in range(max(2 * settings.rounds, _MAX_ROUNDS)):
        taken = time.monotonic() - begun
        if number >= _MIN_ROUNDS and taken > settings.max_seconds:
            return
        if number >= _FEWEST_ROUNDS and taken > enough:
            return
        if number >= settings.rounds and _is_narrow(samples, settings):
            return
        yield number


def _is_narrow(samples: Mapping[str, Samples], settings: BenchSettings) -> bool:
    baseline, *others = samples.values()
    ratios = (
        speedup(baseline.medians(shape), other.medians(shape), settings.confidence)
        for other in others
        for shape in baseline.times
    )
    return all(ratio.high / ratio.value - 1 < settings.width for ratio in ratios)


def rotated(names: list[str], number: int) -> list[str]:
    """Return the names, another one first in each round, every second round backwards."""
    start = number % len(names)
    turned = names[start:] + names[:start]
    return turned if number % 2 == 0 else turned[::-1]


def _run_block(
    name: str,
    contender: Contender,
    turns: Mapping[str, Sequence[Feeds]],
    settings: BenchSettings,
    samples: Samples,
) -> None:
    seconds = (settings.block_seconds * _WARM_UP_SHARE, settings.block_seconds)
    answer = run_isolated(
        time_block,
        contender.model,
        contender.target,
        contender.options,
        [[dict(feed) for feed in feeds] for feeds in turns.values()],
        seconds,
        limits=ChildLimits(seconds=_patience(settings, len(turns))),
        label=f"timing {name} on {contender.target}",
    )
    samples.loads.append(answer["load_seconds"])
    samples.firsts.append(answer["first_seconds"])
    samples.peaks.append(answer["peak_bytes"])
    for shape, times in zip(turns, answer["times"], strict=True):
        samples.times[shape].append(times)


def _patience(settings: BenchSettings, shapes: int) -> float:
    """Return when a block counts as hung: loading alone may take minutes for large models."""
    return 300 + settings.max_seconds + 4 * shapes * settings.block_seconds


def latency_result(
    name: str,
    shape: str,
    feeds: Feeds,
    samples: Mapping[str, Samples],
    settings: BenchSettings,
) -> LatencyResult:
    """Return what the samples of a contender come to.

    Args:
        name: The contender.
        shape: The label of the shape.
        feeds: What it ran on.
        samples: Those of all contenders, the baseline first.
        settings: How it was timed.
    """
    baseline = next(iter(samples))
    own = samples[name]
    medians = own.medians(shape)
    runs = np.concatenate(own.times[shape])
    rate = len(runs) / float(runs.sum())
    reading = reading_of(feeds)
    return LatencyResult(
        name=name,
        shape=shape,
        median_ms=1e3 * float(np.median(medians)),
        p90_ms=1e3 * float(np.percentile(runs, 90)),
        p99_ms=1e3 * float(np.percentile(runs, 99)),
        throughput=_batch(shape, feeds) * rate,
        peak_bytes=max(own.peaks),
        load_seconds=float(np.median(own.loads)),
        runs=len(runs),
        block_medians_ms=tuple(1e3 * median for median in medians),
        speedup=None if name == baseline else _ratio(samples[baseline], own, shape, settings),
        mean_ms=1e3 * float(runs.mean()),
        samples=own.turns[shape],
        phase=None if reading is None else reading.phase,
        tokens_per_second=None if reading is None else reading.tokens * rate,
        first_seconds=float(np.median(own.firsts)),
    )


def _ratio(baseline: Samples, own: Samples, shape: str, settings: BenchSettings) -> Ratio | None:
    if min(len(baseline.times[shape]), len(own.times[shape])) < _FEWEST_ROUNDS:
        return None  # Stopped before there was an interval.
    return speedup(baseline.medians(shape), own.medians(shape), settings.confidence)


def told_of_few_runs(results: Sequence[LatencyResult]) -> str:
    """Say that models were timed in single runs, because each takes seconds; empty otherwise."""
    slow = [r for r in results if r.runs == len(r.block_medians_ms) and r.samples == 1]
    if not slow:
        return ""
    worst = max(slow, key=lambda r: r.median_ms)
    return (
        f"timed in {worst.runs} runs each: one takes {worst.median_ms / 1e3:.1f} s at "
        f"{worst.shape}; sizes of inputs are named with --size AXIS=N"
    )


def _batch(shape: str, feeds: Feeds) -> int:
    """Return the samples of a call, by its label; not every first axis holds samples."""
    told = re.search(r"\bbatch=(\d+)", shape)
    if told is not None:
        return int(told[1])
    sizes: Sequence[int] = [len(array) for array in feeds.values() if array.ndim]
    return sizes[0] if sizes else 1
