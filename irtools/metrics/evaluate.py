"""Running a model over a dataset, for a metric or against another model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from irtools.data import Dataset, padding_mask
from irtools.errors import DataError
from irtools.metrics.base import Metric
from irtools.metrics.fidelity import FidelityMeter
from irtools.metrics.per_sample import PerSampleMetric
from irtools.targets import Runner

__all__ = [
    "Evaluation",
    "Resampled",
    "bootstrap",
    "check_labels",
    "compare_runners",
    "evaluate",
    "evaluate_outputs",
    "join_outputs",
    "resample_outputs",
    "resample_rows",
    "run_dataset",
]

_RESAMPLES = 1000


@dataclass(frozen=True)
class Evaluation:
    """A metric over a dataset.

    Attributes:
        name: Name of the metric (`accuracy`).
        value: The figure over the whole dataset.
        low: Lower end of the bootstrap interval over samples.
        high: Upper end.
        samples: Number of samples that it was measured on.
        larger_is_better: Whether a larger figure is a better one.
        confidence: Level of the interval.
    """

    name: str
    value: float
    low: float
    high: float
    samples: int
    larger_is_better: bool = True
    confidence: float = 0.95


@dataclass(frozen=True, eq=False)
class Resampled:
    """A metric over a dataset, with what a paired comparison needs of it.

    Attributes:
        evaluation: The metric and its interval.
        drawn: [resamples], the metric on each bootstrap sample. The draws follow from the seed and
            the number of samples alone, so two models of one dataset are drawn on the same samples.
        scores: [N], a score per sample whose mean is the metric; None where it is not such a mean.
    """

    evaluation: Evaluation
    drawn: np.ndarray
    scores: np.ndarray | None


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
    rows = _per_sample_rows(runner, dataset, metric, batch)
    return resample_rows(metric, rows, seed).evaluation


def evaluate_outputs(
    outputs: Mapping[str, np.ndarray], dataset: Dataset, metric: Metric, seed: int = 0
) -> Evaluation:
    """Return the metric of outputs that `run_dataset` has kept, as `evaluate` does of a model.

    Raises:
        DataError: No labels, or labels that do not fit the outputs.
    """
    return resample_outputs(metric, outputs, dataset, seed).evaluation


def resample_outputs(
    metric: Metric, outputs: Mapping[str, np.ndarray], dataset: Dataset, seed: int = 0
) -> Resampled:
    """As `evaluate_outputs`, with what a paired comparison needs."""
    labels = _require(dataset.labels, dataset, metric)
    if isinstance(metric, PerSampleMetric):
        return resample_rows(metric, metric.per_sample(outputs, labels), seed)

    def figure(chosen: np.ndarray) -> float:
        return metric({name: rows[chosen] for name, rows in outputs.items()}, labels[chosen])

    return _resampled(metric, figure, len(dataset), seed)


def resample_rows(metric: PerSampleMetric, rows: np.ndarray, seed: int = 0) -> Resampled:
    """Return the metric of what it keeps of each sample, [N, k], in the order of the samples."""
    found = _resampled(metric, lambda chosen: metric.finish(rows[chosen]), len(rows), seed)
    return replace(found, scores=metric.scores(rows))


def _resampled(
    metric: Metric, figure: Callable[[np.ndarray], float], samples: int, seed: int
) -> Resampled:
    drawn = _draw(figure, samples, _RESAMPLES, seed)
    low, high = _quantiles(drawn, 0.95)
    value = float(figure(np.arange(samples)))
    found = Evaluation(metric.name, value, low, high, samples, metric.larger_is_better)
    return Resampled(found, drawn, None)


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
    return _quantiles(_draw(statistic, samples, resamples, seed), confidence)


def _draw(
    statistic: Callable[[np.ndarray], float], samples: int, resamples: int, seed: int
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.array([statistic(rng.integers(0, samples, samples)) for _ in range(resamples)])


def _quantiles(figures: np.ndarray, confidence: float) -> tuple[float, float]:
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
    return {name: join_outputs([part[name] for part in parts]) for name in parts[0]}


def _per_sample_rows(
    runner: Runner, dataset: Dataset, metric: PerSampleMetric, batch: int
) -> np.ndarray:
    rows: list[np.ndarray] = []
    size = dataset.fixed_batch or batch
    for number, feeds in enumerate(dataset.batches(batch)):
        start = number * size
        given = None if dataset.labels is None else dataset.labels[start : start + size]
        labels = metric.choose_labels(given, feeds)
        rows.append(metric.per_sample(runner.run(feeds), _require(labels, dataset, metric)))
    return join_outputs(rows)


def _require(labels: np.ndarray | None, dataset: Dataset, metric: Metric) -> np.ndarray:
    if labels is None:
        raise DataError(
            f"{dataset.source} has no labels, and metric '{metric.name}' needs them (an array "
            "'labels', or a column 'label')"
        )
    return labels


def join_outputs(parts: Sequence[np.ndarray]) -> np.ndarray:
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
