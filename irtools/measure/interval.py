"""The confidence interval of a speed-up."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from irtools.measure.base import Ratio

__all__ = ["speedup", "student_t"]


def speedup(
    baseline: Sequence[float], contender: Sequence[float], confidence: float = 0.95
) -> Ratio:
    """Return how many times faster the contender is.

    Times are compared within a round, where a slow minute of the machine hits both, and on a
    logarithmic scale, where half and double are equally far from 1: the interval is Student's t
    on the log ratios of the rounds.

    Args:
        baseline: Median time of each round.
        contender: The same rounds.
        confidence: Level of the interval.
    """
    logs = np.log(np.asarray(baseline) / np.asarray(contender))
    mean = float(logs.mean())
    if len(logs) < 2:
        return Ratio(math.exp(mean), 0.0, math.inf)
    error = float(logs.std(ddof=1)) / math.sqrt(len(logs))
    reach = student_t(confidence, len(logs) - 1) * error
    return Ratio(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach))


def student_t(confidence: float, freedom: int) -> float:
    """Return t with P(|T| < t) = confidence, by bisection."""
    low, high = 0.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        if _two_sided(middle, freedom) < confidence:
            low = middle
        else:
            high = middle
    return high


def _two_sided(t: float, freedom: int) -> float:
    """Return P(|T| < t). Abramowitz and Stegun, 26.7.3 and 26.7.4: exact for whole degrees."""
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    if freedom == 1:
        return 2 * angle / math.pi
    term = cosine if odd else 1.0
    total = term
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
