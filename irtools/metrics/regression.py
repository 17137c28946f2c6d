"""Error of predicted numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from irtools.errors import DataError
from irtools.metrics.outputs import find_output
from irtools.metrics.per_sample import PerSampleMetric

__all__ = ["MeanSquaredError"]


class MeanSquaredError(PerSampleMetric):
    """Mean squared difference between the output and the label; smaller is better."""

    name: str = "mse"
    larger_is_better: bool = False

    def per_sample(self, outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
        """Return the squared error of each sample [N, 1], mean over its numbers."""
        found = find_output(outputs, ("logits", "scores", "output"))
        if found.shape[0] != len(labels) or found.size != labels.size:
            raise DataError(
                f"mse needs a number per output: the output has shape {list(found.shape)}, the "
                f"labels {list(labels.shape)}"
            )
        error = found.reshape(len(labels), -1).astype(np.float64) - labels.reshape(len(labels), -1)
        return np.asarray(np.square(error).mean(axis=1, keepdims=True))

    def finish(self, rows: np.ndarray) -> float:
        """Return the mean over samples."""
        return float(rows.mean()) if len(rows) else float("nan")
