"""Running a model over a dataset, for a metric or against another model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from irtools.data import Dataset
from irtools.data.padding import padding_mask
from irtools.errors import DataError
from irtools.metrics.base import Fidelity, Metric
from irtools.metrics.fidelity import FidelityMeter
from irtools.metrics.per_sample import PerSampleMetric
from irtools.targets import Runner

__all__ = [
    "Evaluation",
    "bootstrap",
    "check_labels",
    "compare_runners",
    "evaluate",
    "evaluate_outputs",
    "measure_fidelity",
    "run_dataset",
]

_RESAMPLES = 1000


@dataclass(frozen=True)
class Evaluation:
    """A metric over a dataset.

    Attributes:
        low: Lower end of the bootstrap interval.
        high: Upper end.
        confidence: Level of the interval.
    """

    metric: str
    value: float
    low: float
    high: float
    samples: int
    larger_is_better: bool = True
    confidence: float = 0.95


def evaluate(
    runner: Runner,
    dataset: Dataset,
    metric: Metric,
    batch: int = 16,
    seed: int = 0,
    without_batch: Collection[str] = (),
) -> Evaluation:
    """Return the metric of a model with its bootstrap interval.

    Metrics of rows per sample keep those rows only; others are given the whole outputs, so their
    memory grows with the dataset.

    Args:
        without_batch: As in `run_dataset`.

    Raises:
        DataError: No labels, or labels that do not fit the outputs.
    """
    if len(dataset) == 0:
        raise DataError(f"{dataset.source} holds no samples to evaluate")
    if not isinstance(metric, PerSampleMetric):
        outputs = run_dataset(runner, dataset, batch, without_batch)
        return evaluate_outputs(outputs, dataset, metric, seed)
    return _from_rows(_per_sample_rows(runner, dataset, metric, batch), metric, seed)


def evaluate_outputs(
    outputs: Mapping[str, np.ndarray], dataset: Dataset, metric: Metric, seed: int = 0
) -> Evaluation:
    """Return the metric of outputs that `run_dataset` has kept, as `evaluate` does of a model.

    Raises:
        DataError: No labels, or labels that do not fit the outputs.
    """
    labels = _require(dataset.labels, dataset, metric)
    if isinstance(metric, PerSampleMetric):
        return _from_rows(metric.per_sample(outputs, labels), metric, seed)

    def figure(chosen: np.ndarray) -> float:
        return metric({name: rows[chosen] for name, rows in outputs.items()}, labels[chosen])

    low, high = bootstrap(figure, len(dataset), seed=seed)
    value = metric(outputs, labels)
    return Evaluation(metric.name, value, low, high, len(dataset), metric.larger_is_better)


def _from_rows(rows: np.ndarray, metric: PerSampleMetric, seed: int) -> Evaluation:
    low, high = bootstrap(lambda chosen: metric.finish(rows[chosen]), len(rows), seed=seed)
    value = metric.finish(rows)
    return Evaluation(metric.name, value, low, high, len(rows), metric.larger_is_better)


def check_labels(metric: Metric, dataset: Dataset) -> None:
    """Refuse, before any run, a metric that needs labels on data without them.

    Raises:
        DataError: The data has no labels, and they do not follow from the inputs.
    """
    labels = dataset.labels
    if isinstance(metric, PerSampleMetric):
        labels = metric.choose_labels(labels, dataset.take(1).feeds)
    _require(labels, dataset, metric)


def bootstrap(
    statistic: Callable[[np.ndarray], float],
    samples: int,
    *,
    confidence: float = 0.95,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval (Efron 1979) of a figure over samples.

    Args:
        statistic: The figure over the samples at the given numbers.
        seed: Same seed, same interval.
    """
    rng = np.random.default_rng(seed)
    figures = [statistic(rng.integers(0, samples, samples)) for _ in range(resamples)]
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(figures, [tail, 1 - tail])
    return float(low), float(high)


def compare_runners(
    reference: Runner, runner: Runner, dataset: Dataset, batch: int = 8
) -> FidelityMeter:
    """Run both models over the same feeds and return the filled meter."""
    meter = FidelityMeter()
    for feeds in dataset.batches(batch):
        expected = reference.run(feeds)
        meter.update(expected, runner.run(feeds, list(expected)), padding_mask(feeds))
    return meter


def run_dataset(
    runner: Runner, dataset: Dataset, batch: int = 16, without_batch: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """Return the outputs over the whole dataset, samples along axis 0.

    Outputs that vary in size with the length of a batch are filled up with zeros.

    Args:
        without_batch: Outputs as long as what was found in one sample: they get an axis for the
            samples, which then run one by one.
    """
    parts = [
        {name: array[None] if name in without_batch else array for name, array in found.items()}
        for feeds in dataset.batches(1 if without_batch else batch)
        for found in (runner.run(feeds),)
    ]
    if not parts:
        raise DataError(f"{dataset.source} holds no samples to run")
    return {name: _join([part[name] for part in parts]) for name in parts[0]}


def measure_fidelity(
    expected: Mapping[str, np.ndarray], runner: Runner, dataset: Dataset, batch: int = 16
) -> Fidelity:
    """Compare a model with outputs that `run_dataset` kept of the original."""
    meter = FidelityMeter()
    meter.update(expected, run_dataset(runner, dataset, batch), padding_mask(dataset.feeds))
    return meter.result()


def _per_sample_rows(
    runner: Runner, dataset: Dataset, metric: PerSampleMetric, batch: int
) -> np.ndarray:
    rows: list[np.ndarray] = []
    start = 0
    for feeds in dataset.batches(batch):
        size = len(next(iter(feeds.values())))
        given = None if dataset.labels is None else dataset.labels[start : start + size]
        labels = metric.choose_labels(given, feeds)
        rows.append(metric.per_sample(runner.run(feeds), _require(labels, dataset, metric)))
        start += size
    return _join(rows)


def _require(labels: np.ndarray | None, dataset: Dataset, metric: Metric) -> np.ndarray:
    if labels is None:
        raise DataError(
            f"{dataset.source} has no labels, and metric '{metric.name}' needs them (an array "
            "'labels', or a column 'label')"
        )
    return labels


def _join(parts: list[np.ndarray]) -> np.ndarray:
    """Concatenate along axis 0, other axes filled up with zeros to the largest size."""
    sizes = np.array([part.shape[1:] for part in parts])
    if parts[0].ndim <= 1 or (sizes == sizes[0]).all():
        return np.concatenate(parts)
    largest = sizes.max(axis=0)
    padded = [
        np.pad(
            part, [(0, 0), *((0, int(n - m)) for n, m in zip(largest, part.shape[1:], strict=True))]
        )
        for part in parts
    ]
    return np.concatenate(padded)
