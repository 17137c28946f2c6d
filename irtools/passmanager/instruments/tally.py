"""A metric over batches, with its bootstrap interval."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from irtools.metrics import Metric, PerSampleMetric
from irtools.passmanager.step import MetricFigure

__all__ = ["MetricTally"]

_RESAMPLES = 500
_TAILS = (2.5, 97.5)


class MetricTally:
    """Collects what a metric needs, batch by batch.

    A metric made of rows per sample keeps these rows; any other needs all outputs at once.
    """

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._rows: list[np.ndarray] = []
        self._outputs: dict[str, list[np.ndarray]] = {}
        self._labels: list[np.ndarray] = []

    def update(self, outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> None:
        """Add a batch.

        Raises:
            DataError: Labels that do not fit the outputs.
        """
        self._labels.append(labels)
        if isinstance(self._metric, PerSampleMetric):
            self._rows.append(self._metric.per_sample(outputs, labels))
            return
        for name, array in outputs.items():
            self._outputs.setdefault(name, []).append(array)

    def figure(self) -> MetricFigure:
        """Return the figure, with the 95 % percentile bootstrap interval over samples.

        Resampling costs too much where a metric reads all outputs at once; its interval is the
        figure itself.
        """
        samples = sum(len(labels) for labels in self._labels)
        value, low, high = self._value()
        better = self._metric.larger_is_better
        return MetricFigure(self._metric.name, value, low, high, better, samples)

    def _value(self) -> tuple[float, float, float]:
        if not isinstance(self._metric, PerSampleMetric):
            whole = {name: np.concatenate(parts) for name, parts in self._outputs.items()}
            value = float(self._metric(whole, np.concatenate(self._labels)))
            return value, value, value
        rows = np.concatenate(self._rows)
        rng = np.random.default_rng(0)
        draws = [
            self._metric.finish(rows[rng.integers(0, len(rows), len(rows))])
            for _ in range(_RESAMPLES)
        ]
        low, high = np.nanpercentile(draws, _TAILS)
        return float(self._metric.finish(rows)), float(low), float(high)
