"""Times the model after every pass against the original, alternating."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from irtools.data import Dataset, SyntheticSettings
from irtools.errors import DataError, UnsupportedError
from irtools.instruments.first_run import FirstRun
from irtools.instruments.speed import Latency, first_ratios, is_slower
from irtools.measure.base import BenchSettings, LatencyResult
from irtools.measure.effort import TimedModels
from irtools.measure.levels import runs_at
from irtools.measure.own_machine import why_not_timed
from irtools.measure.shapes import bench_feeds, branches, sample_feeds
from irtools.measure.timing import Contender, measure, told_of_few_runs
from irtools.passmanager import Exactness, Instrument, PassResult, Replace, Step
from irtools.targets import Feeds, RunnerOptions, Target, target_text

__all__ = ["Benchmark"]

_ORIGINAL = "original"


class Benchmark(Instrument):
    """Times models against the original in alternating short blocks.

    Which ones the plan says: after every pass; after every lossy one and the last of those in a
    row that promise the same function, which are one step for the user; or the result alone. The
    others have no figures.

    The original runs as it is, the others in the form in which they are written. A model that a
    pass left as it was keeps the figures of the step before. A model that branches may need more
    time for one sample than for another: it is timed on alternating real samples, where there are
    any, and so is the original. A decoder with a cache is timed in prefill and decode.

    With `drop_slower` a lossy pass is undone where it makes the model slower than it was, by
    intervals that do not overlap: int8 without fast int8 instructions, or on a small model.

    Args:
        target: Where the models run.
        settings: Shapes, threads, rounds.
        data: Real samples, for inputs that cannot be invented.
        seed: Seed of the drawn inputs.
        drop_slower: Undo lossy passes that make the model slower.
        adapt: Puts sizes on which the model runs into settings for drawing inputs.
        timed: Which models are timed.
    """

    name: ClassVar[str] = "benchmark"

    def __init__(
        self,
        target: Target,
        settings: BenchSettings,
        data: Dataset | None = None,
        seed: int = 0,
        *,
        drop_slower: bool = False,
        adapt: Callable[[SyntheticSettings], SyntheticSettings] = lambda settings: settings,
        timed: TimedModels = "each",
    ) -> None:
        self._target = target
        self._settings = settings
        self._data = data
        self._seed = seed
        self._drop_slower = drop_slower
        self._adapt = adapt
        self._baseline: Step | None = None
        self._feeds: dict[str, Feeds] = {}
        self._last: tuple[LatencyResult, ...] = ()
        self._timed = timed
        self._pending: Step | None = None

    def begin(self, step: Step) -> None:
        self._baseline = step
        foreign = why_not_timed(self._target)
        if foreign:
            step.figures.notes.append(f"not benchmarked: {foreign}")
            return
        try:
            self._feeds = bench_feeds(
                step.original, self._settings, self._data, self._seed, self._adapt
            )
        except (DataError, UnsupportedError) as error:
            step.figures.notes.append(f"not benchmarked: {error}")

    def resumed(self, step: Step) -> None:
        super().resumed(step)
        if step.index and (known := step.figures.get(Latency)) is not None:
            self._last = known.results

    def after(self, step: Step) -> Replace | None:
        if step.modified:
            self._pending = step
        elif self._pending is None:
            self._put(step)
        if self._pending is not None and self._is_due(step):
            return self.time(step)
        return None

    def end(self, step: Step) -> None:
        """Time a model that waited for passes which were not run."""
        if self._pending is not None:
            self.time(self._pending)

    def _is_due(self, step: Step) -> bool:
        """Whether the model after a step is one of those that are timed."""
        if step.following is None or self._timed == "each":
            return True
        # One that may be undone for being slow is timed, and so is what it is compared with.
        if self._timed == "last" and not self._drop_slower:
            return False
        return Exactness.LOSSY in (step.pass_.promise, step.following)

    def time(self, step: Step) -> Replace | None:
        """Time the model after a step, whatever the plan says of it."""
        self._pending, answer = None, None
        if self._feeds:
            if step.model.companions != step.before.companions:
                # Ids of a smaller vocabulary are ids of the original's, not the other way round.
                self._feeds = bench_feeds(step.model, self._settings, None, self._seed, self._adapt)
            found = self._measure(step)
            lossy = step.pass_.promise is Exactness.LOSSY
            if self._drop_slower and lossy and is_slower(self._last, found):
                answer = _undo(step, found)
            else:
                self._last = found
        self._put(step)
        return answer

    def _put(self, step: Step) -> None:
        _put(step, self._last)

    def compete(
        self, rivals: Mapping[str, tuple[Step, str]]
    ) -> Mapping[str, tuple[LatencyResult, ...]]:
        """Time models of several runs against the original and against each other, alternating.

        Args:
            rivals: Name to the step that a model is after, and to the text of its target. They take
                the inputs of the original.
        """
        if not self._feeds:
            return {}
        assert self._baseline is not None
        steps = [step for step, _ in rivals.values()]
        contenders = self._contenders(rivals)
        feeds, _ = self._feeds_of(steps)
        results = self._compare(self._baseline, contenders, feeds)
        self._put_baseline(results)
        return {name: tuple(r for r in results if r.name == name) for name in rivals}

    def _contenders(self, rivals: Mapping[str, tuple[Step, str]]) -> dict[str, Contender]:
        assert self._baseline is not None
        original = self._baseline.workspace.timed_path(self._baseline.original)
        found = {_ORIGINAL: Contender(original, target_text(self._target))}
        for name, (step, target) in rivals.items():
            found[name] = Contender(step.workspace.timed_path(step.deployed), target)
        return found

    def _feeds_of(
        self, steps: Sequence[Step]
    ) -> tuple[Mapping[str, Feeds | Sequence[Feeds]], bool]:
        """Return what models are timed on, and whether that is samples by turns."""
        if self._data is None or not any(branches(step.model) for step in steps):
            return self._feeds, False
        data = self._data.encoded_with(steps[-1].model.companions)
        return sample_feeds(data, self._settings), True

    def _measure(self, step: Step) -> tuple[LatencyResult, ...]:
        contenders = self._contenders({step.text: (step, target_text(self._target))})
        feeds, in_turns = self._feeds_of([step])
        results = self._compare(step, contenders, feeds)
        if in_turns:
            step.figures.notes.extend(_spread(r) for r in results if r.name == step.text)
        if few := told_of_few_runs(results):
            step.figures.notes.append(few)
        self._put_baseline(results)
        return tuple(r for r in results if r.name != _ORIGINAL)

    def _put_baseline(self, results: Sequence[LatencyResult]) -> None:
        """Give the original its times; it is timed again with every pass, the first ones stay."""
        assert self._baseline is not None
        if self._baseline.figures.get(Latency) is None:
            _put(self._baseline, [r for r in results if r.name == _ORIGINAL])

    def _compare(
        self,
        step: Step,
        contenders: dict[str, Contender],
        feeds: Mapping[str, Feeds | Sequence[Feeds]],
    ) -> list[LatencyResult]:
        """Time the models; where the runtime breaks the original with all of its optimizations,
        with as many as it bears."""
        try:
            return measure(contenders, feeds, self._settings, step.ctx.progress)
        except (DataError, UnsupportedError):
            first = next(iter(feeds.values()))
            one = first if isinstance(first, Mapping) else first[0]
            level = runs_at(contenders[_ORIGINAL], one)
            if level in (None, "all"):
                raise
        eased = {
            name: replace(
                contender, options=RunnerOptions(optimizations=runs_at(contender, one) or "all")
            )
            for name, contender in contenders.items()
        }
        step.figures.notes.append(
            f"timed with the runtime's own optimizations {_levels(eased)}: with all of them it "
            "does not run the original"
        )
        return measure(eased, feeds, self._settings, step.ctx.progress)


def _put(step: Step, found: Sequence[LatencyResult]) -> None:
    """Add what was found of a model at each shape to its figures."""
    if found:
        step.figures.put(Latency(tuple(found)))
        step.figures.put(FirstRun.of_timed(found[0]))


def _levels(contenders: Mapping[str, Contender]) -> str:
    return ", ".join(f"{c.options.optimizations} ({name})" for name, c in contenders.items())


def _spread(result: LatencyResult) -> str:
    """Say how far runs differ, of a model whose work may depend on the sample."""
    return (
        f"{result.shape}: mean {result.mean_ms:.2f} ms, p90 {result.p90_ms:.2f} ms, "
        f"p99 {result.p99_ms:.2f} ms"
    )


def _undo(step: Step, found: Sequence[LatencyResult]) -> Replace:
    ratios = ", ".join(
        f"{ratio.value:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]"
        + (f" in {phase}" if phase is not None else "")
        for phase, ratio in first_ratios(found)
    )
    step.figures.notes[:] = [
        f"undone, because it made the model slower: {ratios} of the original's speed"
    ]
    return Replace(step.before, PassResult(modified=False))
