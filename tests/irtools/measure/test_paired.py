"""The interval of a difference between two models on the same samples."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from irtools.measure.contest import paired_difference
from irtools.metrics import (
    Difference,
    Evaluation,
    PerSampleMetric,
    Resampled,
    load_metric,
    resample_rows,
)
from irtools.metrics.classification import Accuracy, F1Macro
from irtools.metrics.language import Perplexity


def rows_of(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """What metrics of one class per sample keep: (class, prediction)."""
    return np.stack([labels, predicted], axis=1)


def between(metric: PerSampleMetric, first: np.ndarray, other: np.ndarray) -> Difference:
    return paired_difference(resample_rows(metric, first), resample_rows(metric, other))


@pytest.mark.parametrize("name", ["accuracy", "f1-micro", "f1-macro"])
def test_equal_models_differ_by_nothing(name: str) -> None:
    metric = load_metric(name)
    assert isinstance(metric, PerSampleMetric)
    rng = np.random.default_rng(0)
    rows = rows_of(rng.integers(0, 3, 50), rng.integers(0, 3, 50))
    found = between(metric, rows, rows)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
    assert not found.is_significant


@pytest.mark.parametrize("metric", [Accuracy(), F1Macro()])
def test_a_worse_model_is_told_from_noise(metric: PerSampleMetric) -> None:
    labels = np.arange(200) % 2
    worse = np.where(np.arange(200) % 8 == 0, 1 - labels, labels)
    found = between(metric, rows_of(labels, labels), rows_of(labels, worse))
    assert found.value == pytest.approx(metric.finish(rows_of(labels, worse)) - 1)
    assert found.high < 0 and found.is_significant
    back = between(metric, rows_of(labels, worse), rows_of(labels, labels))
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


def test_scores_of_a_sample_are_compared_by_t() -> None:
    """Four samples of ten change: mean -0.2, by hand; t of 9 degrees of freedom is 2.262."""
    labels = np.zeros(10, np.int64)
    first, other = labels.copy(), labels.copy()
    first[0], other[[1, 2, 3]] = 1, 1
    found = between(Accuracy(), rows_of(labels, first), rows_of(labels, other))
    deviation = ((1 * 1.2**2 + 3 * 0.8**2 + 6 * 0.2**2) / 9) ** 0.5
    assert found.value == pytest.approx(-0.2)
    assert found.high - found.value == pytest.approx(2.262 * deviation / 10**0.5, abs=1e-3)


def test_figures_of_no_single_sample_are_drawn_as_brute_force_draws_all() -> None:
    """Five samples have 3,125 bootstrap samples: all of them against the thousand drawn."""
    first = np.array([[3.0, 2], [1.0, 2], [2.5, 3], [4.0, 4], [0.5, 1]])
    other = first + np.array([[0.5, 0], [0.1, 0], [-0.2, 0], [0.9, 0], [0.3, 0]])
    metric = Perplexity()
    every = [
        metric.finish(other[list(chosen)]) - metric.finish(first[list(chosen)])
        for chosen in itertools.product(range(5), repeat=5)
    ]
    found = between(metric, first, other)
    low, high = np.quantile(every, [0.025, 0.975])
    width = high - low
    assert found.value == pytest.approx(metric.finish(other) - metric.finish(first))
    assert found.low == pytest.approx(low, abs=0.1 * width)
    assert found.high == pytest.approx(high, abs=0.1 * width)


def test_the_interval_holds_the_true_difference_as_often_as_it_says() -> None:
    """Models of 90 % and 85 % whose errors fall on the same hard samples."""
    rng, covered, trials = np.random.default_rng(7), 0, 400
    labels = np.zeros(150, np.int64)
    for _ in range(trials):
        hardness = rng.random(150)
        first, other = (hardness > 0.9), (hardness > 0.88) ^ (rng.random(150) < 0.03 / 0.88)
        true = -(0.12 * (1 - 0.03 / 0.88) + 0.88 * 0.03 / 0.88) + 0.1
        rows = [rows_of(labels, wrong.astype(np.int64)) for wrong in (first, other)]
        one, two = (metric_of(r) for r in rows)
        found = paired_difference(one, two)
        covered += found.low <= true <= found.high
    assert 0.92 < covered / trials <= 0.99


def metric_of(rows: np.ndarray) -> Resampled:
    """As `resample_rows`, without the draws that scores do not need."""
    metric = Accuracy()
    value = metric.finish(rows)
    evaluation = Evaluation("accuracy", value, value, value, len(rows))
    return Resampled(evaluation, np.zeros(0), metric.scores(rows))
