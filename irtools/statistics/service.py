"""The statistics service: calibration data through a model, reductions out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from irtools.data import Batch, BatchPlan, Dataset, fit_dataset, plan_batches, required_inputs
from irtools.plugins import NullProgress, Progress
from irtools.statistics.base import CollectionFigures, Gram, GramResult, Want
from irtools.statistics.moments import GramAccumulator
from irtools.statistics.observe import check_observable, expose
from irtools.statistics.waves import (
    HELD_BATCHES,
    Accumulator,
    Wave,
    make_accumulator,
    needed_values,
    plan_waves,
)
from irtools.targets import Runner, RunnerOptions

__all__ = ["CollectionSettings", "StreamingStatistics"]


@dataclass(frozen=True)
class CollectionSettings:
    """How statistics are collected.

    Attributes:
        memory_limit: Bytes of tensors and reductions held at once; the model comes on top.
        batch: Most samples per run. Fewer where memory asks for it; a model with a fixed batch
            size gets that.
        runner: How the model runs. Float32 arithmetic is asked for, so that a runtime's faster
            default does not colour the ranges.
    """

    memory_limit: int = 512 << 20
    batch: int = 8
    runner: RunnerOptions = field(default_factory=lambda: RunnerOptions(precision="f32"))


class StreamingStatistics:
    """Runs calibration data through a model, as seldom as memory allows.

    Wanted tensors become outputs of a copy of the model. Each batch is reduced and dropped.
    Padding does not count (see `padding`). Answers are kept, so asking again costs nothing,
    except for Gram matrices beyond the memory limit, which are collected again.

    Args:
        model: Never changed; observed as it is when `collect` is called for the first time.
        dataset: Calibration data; casts are made as `fit_dataset` allows.
        make_runner: Compiles a model and returns its runner.
    """

    def __init__(
        self,
        model: ir.Model,
        dataset: Dataset,
        make_runner: Callable[[ir.Model, RunnerOptions], Runner],
        settings: CollectionSettings = CollectionSettings(),
        progress: Progress | None = None,
    ) -> None:
        self._model = model
        self._dataset = dataset
        self._make_runner = make_runner
        self._settings = settings
        self._progress = progress or NullProgress()
        self._plan: BatchPlan | None = None
        self._kept: dict[Want, object] = {}
        self._figures = CollectionFigures(0, 0.0, 0)

    @property
    def num_samples(self) -> int:
        """Number of calibration samples."""
        return len(self._dataset)

    @property
    def synthetic(self) -> bool:
        """Whether the data was drawn from the model's signature."""
        return self._dataset.synthetic

    @property
    def figures(self) -> CollectionFigures:
        """What all collections so far have cost."""
        return self._figures

    def collect(self, wants: Iterable[Want]) -> Mapping[Want, object]:
        """Answer all wants.

        Raises:
            DataError: The data does not fit the model.
            UnsupportedError: A wanted tensor does not exist or cannot be observed.
        """
        started = time.perf_counter()
        asked = tuple(dict.fromkeys(wants))
        missing = tuple(want for want in asked if want not in self._kept)
        answers = {want: self._kept[want] for want in asked if want in self._kept}
        if missing:
            check_observable(self._model, needed_values(missing))
            fresh = self._sweep(missing)
            answers.update(fresh)
            self._keep(fresh)
        seconds = self._figures.seconds + time.perf_counter() - started
        self._figures = replace(self._figures, seconds=seconds)
        return answers

    def batches(self, size: int = 1) -> Iterator[Batch]:
        """Iterate over the data itself; see `StatisticsService.batches`.

        Raises:
            DataError: The data does not fit the model.
        """
        return self._batch_plan().batches(size)

    def _sweep(self, wants: tuple[Want, ...]) -> dict[Want, object]:
        plan = self._batch_plan()
        names = needed_values(wants)
        observed = expose(self._model, self._inner(names), with_shapes=True)
        with self._make_runner(observed.model, self._settings.runner) as runner:
            shapes = _probe(runner, next(plan.batches(1)), names, observed.shapes)
            waves = plan_waves(wants, shapes, self._settings.memory_limit, self._settings.batch)
            if len(waves) == 1:
                return self._run_wave(waves[0], plan, runner)
        answers: dict[Want, object] = {}
        for wave in waves:
            part = expose(self._model, self._inner(needed_values(wave.wants)))
            with self._make_runner(part.model, self._settings.runner) as runner:
                answers.update(self._run_wave(wave, plan, runner))
        return answers

    def _run_wave(self, wave: Wave, plan: BatchPlan, runner: Runner) -> dict[Want, object]:
        accumulators = {want: make_accumulator(want.reduction) for want in wave.wants}
        fetched = self._inner(needed_values(wave.wants))
        done, peak = 0, 0
        for batch, outputs in _run_ahead(runner, plan.batches(wave.batch), fetched):
            values = {**batch.feeds, **outputs}
            for want, accumulator in accumulators.items():
                _update(accumulator, want, values, batch.keep)
            held = HELD_BATCHES * sum(values[name].nbytes for name in fetched)
            held += sum(accumulator.state_bytes for accumulator in accumulators.values())
            peak, done = max(peak, held), done + batch.samples
            self._progress.step("calibrating", done, self.num_samples)
        self._figures = replace(
            self._figures,
            sweeps=self._figures.sweeps + 1,
            peak_bytes=max(self._figures.peak_bytes, peak),
        )
        return {want: accumulator.result() for want, accumulator in accumulators.items()}

    def _batch_plan(self) -> BatchPlan:
        if self._plan is None:
            self._dataset = fit_dataset(self._dataset, self._model)
            self._plan = plan_batches(self._dataset, required_inputs(self._model))
        return self._plan

    def _inner(self, names: Iterable[str]) -> list[str]:
        """Leave out graph inputs: the feeds hold them."""
        inputs = {value.name for value in self._model.graph.inputs}
        return [name for name in names if name not in inputs]

    def _keep(self, fresh: Mapping[Want, object]) -> None:
        self._kept.update(fresh)
        grams = {want: a for want, a in self._kept.items() if isinstance(a, GramResult)}
        held = sum(_gram_size(answer) for answer in grams.values())
        for want, answer in grams.items():
            if held <= self._settings.memory_limit:
                break
            held -= _gram_size(answer)
            del self._kept[want]


def _run_ahead(
    runner: Runner, batches: Iterable[Batch], fetched: Sequence[str]
) -> Iterator[tuple[Batch, Mapping[str, np.ndarray]]]:
    """Yield each batch with its outputs while the runtime works on the next one.

    Reductions use one core and the runtime is outside Python, so neither waits for the other. Two
    batches are in memory at a time.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        previous: tuple[Batch, Future[dict[str, np.ndarray]]] | None = None
        for batch in batches:
            running = pool.submit(runner.run, batch.feeds, fetched)
            if previous is not None:
                yield previous[0], previous[1].result()
            previous = (batch, running)
        if previous is not None:
            yield previous[0], previous[1].result()


def _probe(
    runner: Runner, batch: Batch, names: Iterable[str], outputs: Mapping[str, str]
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor for one sample, the longest."""
    found = runner.run(batch.feeds, list(outputs.values())) if outputs else {}
    return {
        name: tuple(int(n) for n in found[outputs[name]])
        if name in outputs
        else batch.feeds[name].shape
        for name in names
    }


def _update(
    accumulator: Accumulator | GramAccumulator,
    want: Want,
    values: Mapping[str, np.ndarray],
    keep: np.ndarray | None,
) -> None:
    x = values[want.value]
    if isinstance(accumulator, GramAccumulator):
        assert isinstance(want.reduction, Gram)
        against = want.reduction.against
        accumulator.update(x, keep, None if against is None else values[against])
    else:
        accumulator.update(x, keep)


def _gram_size(answer: object) -> int:
    assert isinstance(answer, GramResult)
    return answer.xx.nbytes + (0 if answer.xy is None else answer.xy.nbytes)
