"""Metrics that are made of one row of numbers per sample.

The rows are what is kept of a batch, so a dataset is evaluated in bounded memory, and they are
what a bootstrap draws from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

__all__ = ["PerSampleMetric"]


class PerSampleMetric(ABC):
    """A metric computed in two steps: per sample, then over all samples."""

    name: str
    larger_is_better: bool = True

    def __call__(self, outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> float:
        """Return the figure over the whole dataset."""
        return self.finish(self.per_sample(outputs, labels))

    @abstractmethod
    def per_sample(self, outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
        """Return what the figure needs of each sample.

        Returns:
            [N, k]; the meaning of the columns is the metric's own.

        Raises:
            DataError: Labels that do not fit the outputs.
        """

    @abstractmethod
    def finish(self, rows: np.ndarray) -> float:
        """Return the figure from the rows of all samples [N, k]; NaN where there are none."""

    def scores(self, rows: np.ndarray) -> np.ndarray | None:
        """Return a score per sample from 0 to 1 whose mean is the figure; None: no such mean."""
        return None

    def takes(self, labels: np.ndarray) -> bool:
        """Whether labels are of the kind that the metric takes, and not of another task."""
        return True

    def derive_labels(self, feeds: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Return labels that follow from the inputs, or None where they must be given."""
        return None

    def choose_labels(
        self, given: np.ndarray | None, feeds: Mapping[str, np.ndarray]
    ) -> np.ndarray | None:
        """Return the labels given with the feeds where they fit, else those that follow."""
        if given is None or not self.takes(given):
            return self.derive_labels(feeds)
        return given
