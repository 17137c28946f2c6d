"""Times the model after every pass against the original, in turns."""

from __future__ import annotations

from typing import ClassVar

from irtools.data import Dataset
from irtools.errors import DataError
from irtools.measure import BenchSettings, Contender, LatencyResult, measure, target_text
from irtools.measure.shapes import bench_feeds
from irtools.model import Model
from irtools.passmanager.step import Instrument, Step
from irtools.target import Feeds, Target

__all__ = ["Benchmark", "lowered"]

_ORIGINAL = "original"


class Benchmark(Instrument):
    """Times each new model against the original in alternating short blocks.

    The original runs as it is; the others are lowered for the target, as `irc compile` does. A
    model that a pass left as it was keeps the figures of the step before.

    Args:
        target: Where the models run.
        settings: Shapes, threads, rounds.
        data: Real samples, for inputs that cannot be invented.
        seed: Seed of the drawn inputs.
    """

    name: ClassVar[str] = "benchmark"

    def __init__(
        self, target: Target, settings: BenchSettings, data: Dataset | None = None, seed: int = 0
    ) -> None:
        self._target = target
        self._settings = settings
        self._data = data
        self._seed = seed
        self._baseline: Step | None = None
        self._feeds: dict[str, Feeds] = {}
        self._last: tuple[LatencyResult, ...] = ()

    def begin(self, step: Step) -> None:
        self._baseline = step
        try:
            self._feeds = bench_feeds(step.original, self._settings, self._data, self._seed)
        except DataError as error:
            step.figures.notes.append(f"not benchmarked: {error}")

    def after(self, step: Step) -> None:
        if step.modified and self._feeds:
            self._last = self._measure(step)
        step.figures.latency = self._last

    def _measure(self, step: Step) -> tuple[LatencyResult, ...]:
        text = target_text(self._target)
        model = lowered(step.model, self._target)
        contenders = {
            _ORIGINAL: Contender(step.workspace.path(step.original), text),
            step.text: Contender(step.workspace.path(model), text),
        }
        results = measure(contenders, self._feeds, self._settings, step.ctx.progress)
        assert self._baseline is not None
        if not self._baseline.figures.latency:
            # The original is timed again beside every pass; its row shows the first time.
            original = tuple(r for r in results if r.name == _ORIGINAL)
            self._baseline.figures.latency = original
        return tuple(r for r in results if r.name != _ORIGINAL)


def lowered(model: Model, target: Target) -> Model:
    """Return a copy in the forms that a target's compiled artifact has."""
    copy = model.clone()
    target.lower(copy.ir)
    return copy
