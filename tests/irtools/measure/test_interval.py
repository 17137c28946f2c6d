from __future__ import annotations

import math

import numpy as np
import pytest

from irtools.measure.interval import speedup, student_t


@pytest.mark.parametrize(
    ("confidence", "freedom", "expected"),
    [  # Abramowitz and Stegun, table 26.10
        (0.95, 1, 12.706),
        (0.95, 2, 4.303),
        (0.95, 3, 3.182),
        (0.95, 4, 2.776),
        (0.95, 9, 2.262),
        (0.95, 30, 2.042),
        (0.99, 4, 4.604),
        (0.90, 5, 2.015),
    ],
)
def test_student_t(confidence: float, freedom: int, expected: float) -> None:
    assert student_t(confidence, freedom) == pytest.approx(expected, abs=1e-3)


def test_ratios_are_taken_within_a_round() -> None:
    # A machine that gets slower from round to round does not widen the interval.
    drift = np.array([1.0, 2.0, 4.0, 8.0])
    ratio = speedup(drift * 3, drift)
    assert ratio.value == pytest.approx(3)
    assert (ratio.low, ratio.high) == (pytest.approx(3), pytest.approx(3))
    assert ratio.is_significant


def test_the_interval_is_symmetric_in_the_logarithm() -> None:
    there = speedup([1.0, 1.1, 1.2], [0.5, 0.6, 0.55])
    back = speedup([0.5, 0.6, 0.55], [1.0, 1.1, 1.2])
    assert there.low == pytest.approx(1 / back.high)
    assert there.value == pytest.approx(1 / back.value)


def test_one_round_says_nothing() -> None:
    ratio = speedup([2.0], [1.0])
    assert (ratio.low, ratio.high) == (0.0, math.inf)
    assert not ratio.is_significant


def test_noise_is_rarely_significant() -> None:
    rng = np.random.default_rng(0)
    claims = 0
    for _ in range(400):
        baseline, same = np.exp(rng.normal(0, 0.05, (2, 5)))
        claims += speedup(baseline, same).is_significant
    assert claims / 400 < 0.05


def test_coverage() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(1000):
        baseline = np.exp(rng.normal(0, 0.03, 5))
        contender = np.exp(rng.normal(0, 0.03, 5)) / 2
        ratio = speedup(baseline, contender, 0.9)
        inside += ratio.low < 2 < ratio.high
    assert inside / 1000 == pytest.approx(0.9, abs=0.03)
