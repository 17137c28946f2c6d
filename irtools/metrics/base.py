"""Task metrics and fidelity: how good a model is, and how far it is from the original."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

__all__ = ["Difference", "Fidelity", "Metric"]


class Metric(Protocol):
    """A figure of merit over a labelled dataset. Larger is better unless it says otherwise."""

    @property
    def name(self) -> str: ...

    @property
    def larger_is_better(self) -> bool: ...

    def __call__(self, outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> float:
        """Return the figure.

        Args:
            outputs: Output name to array over the whole dataset, samples along axis 0.
            labels: As in `Dataset.labels`.

        Raises:
            DataError: Labels that do not fit the outputs.
        """


@dataclass(frozen=True)
class Fidelity:
    """Closeness to the unoptimized model, over the same feeds.

    Attributes:
        sqnr_db: 20 log10(||y|| / ||y - y'||); infinite where equal.
        relative_l2: ||y - y'|| / ||y||.
        max_abs: Largest |y - y'|.
        cosine: Mean cosine per sample.
        kl: Mean KL(softmax y || softmax y') in nats, over the last axis; None where the output
            is not a row of at least two logits. Where a sample may have several labels: the sum of
            the KL of each label.
        agreement: Share of equal arg-max over the last axis; None as above. Where a sample may
            have several labels: share of samples that keep their set of labels.
        samples: Number of samples.
        nonfinite: Positions that are NaN or infinite in one of the two but not in the other.
        same_shape: Share of samples whose outputs all have the size of the original's, where
            sizes depend on the data (boxes that were found); the other figures are over outputs
            of equal size, and NaN where there was none. None where sizes cannot differ.
    """

    sqnr_db: float
    relative_l2: float
    max_abs: float
    cosine: float
    kl: float | None
    agreement: float | None
    samples: int
    nonfinite: int = 0
    same_shape: float | None = None


@dataclass(frozen=True)
class Difference:
    """Difference of a metric between two models on the same samples.

    Attributes:
        value: Metric of the one less that of the other.
        low: Lower end of the interval of the paired difference.
        high: Upper end.
        confidence: Level of the interval.
    """

    value: float
    low: float
    high: float
    confidence: float = 0.95

    @property
    def is_significant(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0
