"""The difference of a metric between two models that ran on the same samples.

A sample that is hard for one model is most often hard for the other, too. The interval of the
difference is therefore much narrower than those of the two figures let expect, and it alone
says whether one model is better.
"""

from __future__ import annotations

import math

import numpy as np

from irtools.measure.interval import student_t
from irtools.metrics import Difference, Resampled

__all__ = ["paired_difference"]

_MANY = 1000
"""Degrees of freedom from which Student's t is the normal distribution to three digits."""


def paired_difference(first: Resampled, other: Resampled) -> Difference:
    """Return the metric of another model less that of the first, with its interval.

    Where the metric is the mean of a score per sample, the interval is Student's t on the mean of
    the differences, sample by sample: for two shares, McNemar's comparison. Any other metric is
    drawn on the same bootstrap samples for both (Efron and Tibshirani 1993, chapter 8), and the
    interval is that of the differences of the draws.

    Args:
        first: Of the model that is compared with.
        other: Of the other model: same samples, same seed.
    """
    confidence = first.evaluation.confidence
    if first.scores is not None and other.scores is not None and len(first.scores) > 1:
        return _of_scores(other.scores - first.scores, confidence)
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(other.drawn - first.drawn, [tail, 1 - tail])
    value = other.evaluation.value - first.evaluation.value
    return Difference(value, float(low), float(high), confidence)


def _of_scores(differences: np.ndarray, confidence: float) -> Difference:
    samples = len(differences)
    mean = float(differences.mean())
    error = float(differences.std(ddof=1)) / math.sqrt(samples)
    reach = student_t(confidence, min(samples - 1, _MANY)) * error
    return Difference(mean, mean - reach, mean + reach, confidence)
