"""How good a model is on data, beside the original. Every model is run once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from irtools.data import Dataset, required_inputs
from irtools.data.labels import has_several_labels
from irtools.data.padding import padding_mask
from irtools.errors import UsageError
from irtools.metrics import (
    Fidelity,
    FidelityMeter,
    Metric,
    PerSampleMetric,
    bootstrap,
    check_labels,
    evaluate,
)
from irtools.model import Model
from irtools.passmanager.context import Progress
from irtools.passmanager.step import MetricFigure
from irtools.statistics.padding import Batch, plan_batches
from irtools.target import Runner, RunnerOptions

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Judge", "Score"]

_BATCH = 16
_OUTPUT_BYTES = 64 << 20
_FIDELITY_SAMPLES = 128
_REFERENCE_BYTES = 128 << 20

Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Score:
    """What a model is worth.

    Attributes:
        fidelity: Closeness to the original run exactly (float32, no optimizations).
        metric: The task metric; None without labels.
    """

    fidelity: Fidelity
    metric: MetricFigure | None


class Judge:
    """Scores models against the original on the same data, and remembers the scores.

    Args:
        original: The model before the first pass.
        data: Evaluation data, with labels where there is a metric. With a metric or a budget all
            of it is used; for fidelity alone 128 samples, evenly spread, tell enough, and fewer
            where the outputs of so many are too large to be kept.
        metric: The task metric, or None.
        make_runner: Compiles a model as it will be deployed.
        progress: Where to tell how far it is.
        whole: Use all of the data without a metric too, because a budget hangs on it.

    Attributes:
        data: The samples that are used.
        notes: What a reader of the report must know of them.
    """

    def __init__(
        self,
        original: Model,
        data: Dataset,
        metric: Metric | None,
        make_runner: Callable[[ir.Model, RunnerOptions], Runner],
        progress: Progress,
        *,
        whole: bool = False,
    ) -> None:
        sample = _output_bytes(original, data)
        enough = max(1, min(_FIDELITY_SAMPLES, _REFERENCE_BYTES // sample))
        self.data = data if whole or metric is not None else data.spread(enough)
        self.notes: tuple[str, ...] = ()
        if len(self.data) < len(data):
            self.notes = (
                f"fidelity is measured on {len(self.data)} of the {len(data)} samples of "
                f"{data.source}, evenly spread",
            )
        self._original = original
        self._metric = metric
        self._make_runner = make_runner
        self._progress = progress
        self._plan = plan_batches(self.data, required_inputs(original), skip_empty=False)
        self._several = has_several_labels(original.ir.metadata_props, data.labels)
        self._batch = max(1, min(_BATCH, _OUTPUT_BYTES // sample))
        self._keeps = sample * len(self.data) <= _REFERENCE_BYTES
        self._reference: list[Outputs] | None = None
        self._scores: WeakKeyDictionary[Model, Score] = WeakKeyDictionary()

    @property
    def what(self) -> str:
        """What `drop` is measured in."""
        if self._metric is not None:
            return self._metric.name
        return "agreement on all labels" if self._several else "top-1 agreement"

    def score(self, model: Model) -> Score:
        """Return what a model is worth; it must not change afterwards."""
        found = self._scores.get(model)
        if found is None:
            found = self._scores[model] = self._measure(model)
        return found

    def drop(self, model: Model) -> float:
        """Return the loss against the original; 0 or less where there is none.

        It is the difference of the metric (0.01: one point of accuracy), relative to the
        original's for a metric of which less is better (perplexity), and without labels the share
        of answers whose largest logit, or whose set of labels, is another one.

        Raises:
            UsageError: There are neither labels nor class scores, so that nothing can be lost.
        """
        score = self.score(model)
        if score.metric is None:
            if score.fidelity.agreement is None:
                raise UsageError(
                    "max-drop needs a metric with labelled evaluation data, or a model whose "
                    "output is a row of class scores"
                )
            return 1.0 - score.fidelity.agreement
        base = self.score(self._original).metric
        assert base is not None
        if base.larger_is_better:
            return base.value - score.metric.value
        return (score.metric.value - base.value) / abs(base.value) if base.value else float("inf")

    def _measure(self, model: Model) -> Score:
        meter = FidelityMeter(several_labels=self._several)
        rows: list[np.ndarray] = []
        what = "the original" if model is self._original else "the model"
        if self._keeps and self._reference is None:
            # Before the model is opened, so that one of the two is in memory at a time.
            self._reference = [outputs for _, outputs in self._run_original()]
        with self._make_runner(model.ir, RunnerOptions()) as runner:
            done = 0
            data = self.data.encoded_with(model.companions)
            for batch, expected in self._expected():
                own = batch if data is self.data else self._plan.same_rows(batch, data)
                found = runner.run(own.feeds)
                meter.update(expected, found, batch.keep)
                if isinstance(self._metric, PerSampleMetric):
                    rows.append(self._metric.per_sample(found, self._labels(batch)))
                done += batch.samples
                self._progress.step(f"evaluating {what}", done, len(self.data))
            return Score(meter.result(), self._figure(runner, rows, data))

    def _labels(self, batch: Batch) -> np.ndarray:
        assert isinstance(self._metric, PerSampleMetric)
        if self.data.labels is None or not self._metric.takes(self.data.labels):
            check_labels(self._metric, self.data)
            derived = self._metric.derive_labels(batch.feeds)
            assert derived is not None
            return derived
        labels: np.ndarray = self.data.labels[batch.rows]
        whole, cut = padding_mask(self.data.feeds), padding_mask(batch.feeds)
        if whole is not None and cut is not None and self.data.labels.shape == whole.shape:
            labels = labels[:, : cut.shape[1]]  # One label per token.
        return labels

    def _figure(
        self, runner: Runner, rows: Sequence[np.ndarray], data: Dataset
    ) -> MetricFigure | None:
        metric = self._metric
        if metric is None:
            return None
        if not isinstance(metric, PerSampleMetric):
            found = evaluate(runner, data, metric, _BATCH)
            value, low, high = found.value, found.low, found.high
        else:
            whole = _stack(rows)
            value = metric.finish(whole)
            low, high = bootstrap(lambda chosen: metric.finish(whole[chosen]), len(whole))
        better = metric.larger_is_better
        return MetricFigure(metric.name, float(value), low, high, better, len(self.data))

    def _expected(self) -> Iterator[tuple[Batch, Outputs]]:
        """Yield each batch and the original's outputs for it.

        The outputs are kept where they are small, else the original runs along.
        """
        if self._reference is None:
            yield from self._run_original()
        else:
            yield from zip(self._plan.batches(self._batch), self._reference, strict=True)

    def _run_original(self) -> Iterator[tuple[Batch, Outputs]]:
        with self._make_runner(self._original.ir, RunnerOptions(exact=True)) as runner:
            for batch in self._plan.batches(self._batch):
                yield batch, runner.run(batch.feeds)


def _output_bytes(model: Model, data: Dataset) -> int:
    """Return at most how many bytes the outputs for one sample take.

    A decoder gives a score for every token of its vocabulary at every position, and its cache.
    """
    lengths = [array.shape[1] for array in data.feeds.values() if array.ndim == 2]
    length = max(lengths, default=1)
    sizes = (
        math.prod(size if isinstance(size, int) else length for size in value.shape[1:])
        for value in model.ir.graph.outputs
        if value.shape is not None and len(value.shape)
    )
    return max(1, 4 * sum(sizes))


def _stack(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Concatenate rows; those of shorter batches are filled up with the ignored class -100."""
    width = max(part.shape[1] for part in rows)
    padded = [
        np.pad(part, [(0, 0), (0, width - part.shape[1])], constant_values=-100)
        if part.shape[1] < width
        else part
        for part in rows
    ]
    return np.concatenate(padded)
