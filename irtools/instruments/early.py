"""When it is plain from a part of the samples that a model loses too much."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from irtools.instruments.runs import ModelRuns
from irtools.model import Model

__all__ = ["is_hopeless", "surely_loses"]

_ERROR = 0.01
"""Chance of turning down a model that keeps the limit."""


def is_hopeless(
    runs: ModelRuns, original: Model, model: Model, bounds: Mapping[str, float]
) -> bool:
    """Whether a metric surely falls by more than its bound, by the first part of the data.

    Args:
        bounds: Largest loss of metrics, by name.
    """
    watched = [metric for metric in runs.by_sample if metric.name in bounds]
    if len(runs.parts.scored) < 2 or not watched:
        return False
    before, after = (runs.measured(one, inner=True) for one in (original, model))
    for metric in watched:
        base, own = (metric.scores(runs.rows(one, metric, inner=True)) for one in (before, after))
        if base is not None and own is not None and surely_loses(base, own, bounds[metric.name]):
            return True
    return False


def surely_loses(before: np.ndarray, after: np.ndarray, limit: float) -> bool:
    """Whether the mean score falls by more than a limit, by a bound that holds for any scores.

    One look at a part that was fixed beforehand, and only to turn a model down: what is accepted
    is measured on all of the samples, so that no looking ahead can flatter it. The bound is the
    empirical Bernstein bound (Maurer and Pontil 2009, theorem 4) on the mean of the paired
    differences, which lie between -1 and 1.

    Args:
        before: Scores of the original, 0 to 1, one per sample.
        after: Scores of the model for the same samples.
        limit: Largest loss allowed.
    """
    samples = len(before)
    if samples < 2:
        return False
    falls = np.asarray(before, np.float64) - after
    odds = math.log(2 / _ERROR)
    reach = math.sqrt(2 * float(falls.var(ddof=1)) * odds / samples)
    # The theorem is for differences of range 1; these have range 2.
    reach += 2 * 7 * odds / (3 * (samples - 1))
    return float(falls.mean()) - reach > limit
