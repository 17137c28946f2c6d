"""What a model loses, and what it may lose on samples that no choice has seen.

A model that is chosen because it loses little on some samples loses more on others, most often:
the choice prefers the lucky ones. What counts for a budget is therefore the loss that is to be
expected on other samples, with an interval that covers both errors, that of the samples chosen by
and that of the samples quoted (a prediction interval for a mean).
"""

from __future__ import annotations

import math

import numpy as np

from irtools.goals import Interval
from irtools.measure.interval import student_t
from irtools.metrics import PerSampleMetric, Resampled, resample_rows

__all__ = [
    "least_samples",
    "loss_of_draws",
    "loss_of_nothing",
    "loss_of_rows",
    "loss_of_shares",
]

_CONFIDENCE = 0.95
"""Of each end of the interval."""
_MANY = 1000
_TOO_MANY = 1 << 30


def loss_of_rows(
    metric: PerSampleMetric, before: np.ndarray, after: np.ndarray, unseen: float = math.inf
) -> Interval:
    """Return the loss of a metric by what it keeps of each sample.

    Args:
        before: Rows [N, k] of the original.
        after: Rows of the model, for the same samples.
        unseen: Samples on which the loss is to be predicted; infinite: the loss itself.
    """
    first, other = metric.scores(before), metric.scores(after)
    if first is not None and other is not None:
        return loss_of_shares(np.asarray(first, np.float64) - other, unseen)
    return loss_of_draws(resample_rows(metric, before), resample_rows(metric, after), unseen)


def loss_of_shares(falls: np.ndarray, unseen: float = math.inf) -> Interval:
    """Return the mean fall of scores from 0 to 1, sample by sample, with its interval.

    Two samples are added of which one falls and one rises by 1, with half the weight each: the
    adjustment for paired shares of Agresti and Min (2005). Without it no changed answer at all
    would mean an interval of no width, on ten samples as on a thousand.

    Args:
        falls: [N], from -1 to 1.
        unseen: As in `loss_of_rows`.
    """
    samples = len(falls)
    mean = float(falls.sum()) / (samples + 2)
    spread = (float(np.square(falls).sum()) + 1) / (samples + 2) - mean**2
    reach = _reach(samples, spread, unseen)
    return Interval(float(falls.mean()), mean - reach, mean + reach)


def loss_of_draws(before: Resampled, after: Resampled, unseen: float = math.inf) -> Interval:
    """Return the loss of a figure that is not a mean over samples, by bootstrap on the same draws.

    Of a figure of which less is better, such as perplexity, it is relative to the original's.
    """
    base, own = before.evaluation, after.evaluation
    falls, value, floor = before.drawn - after.drawn, base.value - own.value, 1.0
    if not base.larger_is_better:
        if not base.value:
            return Interval(math.inf, -math.inf, math.inf)
        scale = abs(base.value)
        falls, value, floor = -falls / scale, -value / scale, 0.0
    # One answer in N may change, as in `loss_of_shares`; figures with no upper end are no shares.
    spread = float(np.nanvar(falls)) * base.samples + floor / base.samples
    reach = _reach(base.samples, spread, unseen)
    return Interval(value, value - reach, value + reach)


def least_samples(bound: float, unseen: float | None = None) -> int | None:
    """Return how many samples decide on a loss of a share where not one answer changes.

    Args:
        bound: Largest loss allowed.
        unseen: As in `loss_of_rows`; None: as many as are chosen by.

    Returns:
        The samples to choose by; None: no number of them does.
    """

    def enough(samples: int) -> bool:
        return loss_of_nothing(samples, unseen or samples) <= bound

    few, many = 1, 2
    while not enough(many):
        few, many = many, 2 * many
        if many > _TOO_MANY:
            return None
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return many


def loss_of_nothing(samples: int, unseen: float) -> float:
    """Return the upper end of the loss where not one answer changes."""
    return _reach(samples, 1 / (samples + 2), unseen)


def _reach(samples: int, spread: float, unseen: float) -> float:
    t = student_t(2 * _CONFIDENCE - 1, min(max(samples - 1, 1), _MANY))
    return t * math.sqrt(max(spread, 0.0) * (1 / (samples + 2) + 1 / unseen))
