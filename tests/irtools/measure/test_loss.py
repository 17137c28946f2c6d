"""What a model loses, and what it may lose on samples that were not chosen by."""

from __future__ import annotations

import math

import numpy as np
import pytest

from irtools.measure.contest import (
    least_samples,
    loss_of_nothing,
    loss_of_rows,
    loss_of_shares,
)
from irtools.metrics import load_metric
from irtools.metrics.per_sample import PerSampleMetric


def _metric(name: str) -> PerSampleMetric:
    found = load_metric(name)
    assert isinstance(found, PerSampleMetric)
    return found


def test_no_changed_answer_still_has_an_interval() -> None:
    few, many = (loss_of_shares(np.zeros(n)) for n in (10, 1000))
    assert few.value == many.value == 0
    assert few.high > 0.1 > 0.002 > many.high > 0.0005
    assert few.low == -few.high


def test_the_interval_is_that_of_agresti_and_min() -> None:
    falls = np.array([1.0] * 8 + [-1.0] * 3 + [0.0] * 989)
    found = loss_of_shares(falls)
    assert found.value == pytest.approx(0.005)
    middle = 5 / 1002
    error = math.sqrt((12 / 1002 - middle**2) / 1002)
    assert (found.low, found.high) == pytest.approx(
        (middle - 1.6464 * error, middle + 1.6464 * error), rel=1e-3
    )


def test_samples_that_were_not_seen_widen_it() -> None:
    falls = np.array([1.0] * 5 + [0.0] * 495)
    own, other = loss_of_shares(falls), loss_of_shares(falls, unseen=502)
    assert (other.high - other.low) / (own.high - own.low) == pytest.approx(math.sqrt(2))


def test_accuracy_is_paired_sample_by_sample() -> None:
    before = np.array([[1, 1]] * 90 + [[1, 0]] * 10)
    after = np.array([[1, 1]] * 89 + [[1, 0]] + [[1, 0]] * 9 + [[1, 1]])
    found = loss_of_rows(_metric("accuracy"), before, after)
    assert found.value == 0 and found.high < 0.04


def test_a_figure_that_is_no_mean_is_drawn_on_the_same_samples() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    before, after = labels.copy(), labels.copy()
    after[:30] = (labels[:30] + 1) % 3
    rows = [np.stack([labels, predicted], axis=1) for predicted in (before, after)]
    found = loss_of_rows(_metric("f1-macro"), rows[0], rows[1])
    assert found.value == pytest.approx(0.05, abs=0.01)
    assert 0.02 < found.low < found.value < found.high < 0.08
    nothing = loss_of_rows(_metric("f1-macro"), rows[0], rows[0])
    assert nothing.value == 0 and 0 < nothing.high < 0.01


def test_how_many_samples_a_budget_needs() -> None:
    needed = least_samples(0.01)
    assert needed is not None and 200 < needed < 300
    assert loss_of_nothing(needed, needed) <= 0.01 < loss_of_nothing(needed // 2, needed // 2)
    assert least_samples(0.0) is None
    more = least_samples(0.01, unseen=100)
    assert more is not None and more > needed


@pytest.mark.parametrize("loss", [0.0, pytest.param(0.01, marks=pytest.mark.slow), 0.05])
def test_the_upper_end_holds_on_other_samples(loss: float) -> None:
    rng = np.random.default_rng(1)

    def draw() -> np.ndarray:
        return np.where(rng.random(400) < loss, 1.0, 0.0) - (rng.random(400) < 0.01)

    broken = sum(draw().mean() > loss_of_shares(draw(), unseen=400).high for _ in range(400))
    assert broken <= 0.07 * 400
