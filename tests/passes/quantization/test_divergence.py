"""The distance of outputs by which bits are weighed."""

from __future__ import annotations

import numpy as np
import pytest

from irtools.passes.quantization.divergence import Divergence


def distance(a: np.ndarray, b: np.ndarray, keep: np.ndarray | None = None) -> float:
    total = Divergence()
    total.update({"y": a}, {"y": b}, keep)
    return total.result()


def scores(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, 4, 1500)).astype(np.float32)


def test_what_is_the_same_for_all_scores_changes_nothing() -> None:
    y = scores(0)
    assert distance(y, y + 100) == pytest.approx(0, abs=1e-5)
    assert distance(y, y + 0.1 * scores(1)) == pytest.approx(0.1**2 / 2, rel=0.1)


def test_independent_errors_add_up() -> None:
    y, a, b = scores(0), 0.1 * scores(1), 0.1 * scores(2)
    both = distance(y, y + a + b)
    assert both == pytest.approx(distance(y, y + a) + distance(y, y + b), rel=0.1)


def test_padding_does_not_count() -> None:
    y, other = scores(0), scores(0)
    other[1, 2:] += 5 * scores(1)[1, 2:]
    keep = np.array([[1, 1, 1, 1], [1, 1, 0, 0]])
    assert distance(y, other) > 1
    assert distance(y, other, keep) == pytest.approx(0, abs=1e-9)


def test_other_outputs_by_their_relative_error() -> None:
    y = np.ones((3, 8), np.float32)
    assert distance(y, 1.1 * y) == pytest.approx(0.01, rel=1e-3)
    assert distance(y, y[:2]) == 0.0
