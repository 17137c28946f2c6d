"""Moments per channel and Gram matrices."""

from __future__ import annotations

import numpy as np
import pytest

from irtools.errors import UnsupportedError
from irtools.statistics.moments import (
    GramAccumulator,
    MeanAccumulator,
    RangeAccumulator,
    SquareAccumulator,
)


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((7, 90, 5)).astype(np.float32) + 2


@pytest.mark.parametrize("axis", [-1, 1])
def test_channel_moments_equal_numpy_over_batches(x: np.ndarray, axis: int) -> None:
    rows = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis]).astype(np.float64)
    expected = {
        RangeAccumulator: np.stack([rows.min(axis=0), rows.max(axis=0)]),
        MeanAccumulator: rows.mean(axis=0),
        SquareAccumulator: np.square(rows).mean(axis=0),
    }
    for kind, want in expected.items():
        accumulator = kind(axis)
        for part in np.split(x, [1, 4]):
            accumulator.update(part, None)
        np.testing.assert_allclose(accumulator.result(), want, rtol=2e-6)


def test_gram_has_a_constant_column_and_explains_another_tensor(x: np.ndarray) -> None:
    y = np.tanh(x[..., :3] * 2)
    accumulator = GramAccumulator(-1)
    for start in range(0, 7, 2):
        accumulator.update(x[start : start + 2], None, y[start : start + 2])
    result = accumulator.result()
    ones = np.concatenate([x.reshape(-1, 5), np.ones((630, 1), np.float32)], axis=1)
    ones, targets = ones.astype(np.float64), y.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(result.xx, ones.T @ ones, rtol=1e-5)
    np.testing.assert_allclose(result.xy, ones.T @ targets, rtol=1e-5)
    np.testing.assert_allclose(result.yy, np.square(targets).sum(axis=0), rtol=1e-5)
    assert result.count == result.xx[-1, -1] == 630
    assert np.array_equal(result.xx, result.xx.T)


def test_gram_after_many_rows_has_double_precision_sums() -> None:
    rng = np.random.default_rng(1)
    parts = [rng.uniform(1, 2, (512, 4)).astype(np.float32) for _ in range(60)]
    accumulator = GramAccumulator(-1)
    for part in parts:
        accumulator.update(part, None)
    rows = np.concatenate(parts).astype(np.float64)
    np.testing.assert_allclose(accumulator.result().xx[:4, :4], rows.T @ rows, rtol=1e-6)


def test_positions_with_nan_are_left_out(x: np.ndarray) -> None:
    clean = x[:, 1:]
    x = x.copy()
    x[:, 0, 2] = [np.nan, np.inf, -np.inf, np.nan, np.nan, np.nan, np.nan]
    accumulators = [MeanAccumulator(-1), RangeAccumulator(-1)]
    gram, expected = GramAccumulator(-1), GramAccumulator(-1)
    ends = np.stack([clean.min(axis=(0, 1)), clean.max(axis=(0, 1))])
    for accumulator, wanted in zip(accumulators, [clean.mean(axis=(0, 1)), ends], strict=True):
        accumulator.update(x, None)
        np.testing.assert_allclose(accumulator.result(), wanted, rtol=1e-5)
    gram.update(x, None)
    expected.update(clean, None)
    assert gram.result().count == 7 * 89
    np.testing.assert_allclose(gram.result().xx, expected.result().xx, rtol=1e-5)


def test_positions_with_nan_in_what_is_explained_are_left_out(x: np.ndarray) -> None:
    y = np.tanh(x[..., :2])
    y[0, 3, 1] = np.nan
    accumulator = GramAccumulator(-1)
    accumulator.update(x, None, y)
    result = accumulator.result()
    assert result.count == 7 * 90 - 1
    assert result.xy is not None and np.isfinite(result.xy).all()
    rows = np.delete(x.reshape(-1, 5), 3, axis=0).astype(np.float64)
    np.testing.assert_allclose(result.xx[:5, :5], rows.T @ rows, rtol=1e-5)


def test_axis_that_is_not_there() -> None:
    with pytest.raises(UnsupportedError, match=r"shape \[2, 3\] has no channel axis 2"):
        MeanAccumulator(2).update(np.zeros((2, 3), np.float32), None)


def test_gram_of_tensors_with_other_positions() -> None:
    with pytest.raises(UnsupportedError, match="same positions, found 6 and 2"):
        GramAccumulator(-1).update(np.zeros((2, 3, 4)), None, np.zeros((2, 4)))


def test_nothing_seen() -> None:
    assert MeanAccumulator(-1).result().shape == (0,)
    assert GramAccumulator(-1).result().count == 0
