"""Ranges and histograms by bit pattern."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from irtools.statistics import HistogramResult
from irtools.statistics.histogram import HistogramAccumulator, MinMaxAccumulator

FLOATS = arrays(np.float32, st.integers(1, 60), elements=st.floats(width=32, allow_nan=True))


def histogram(*parts: np.ndarray) -> HistogramResult:
    accumulator = HistogramAccumulator()
    for part in parts:
        accumulator.update(part, None)
    return accumulator.result()


@given(FLOATS)
def test_every_finite_value_is_counted_in_a_bin_that_holds_it(x: np.ndarray) -> None:
    result = histogram(x)
    finite = x[np.isfinite(x)]
    assert result.counts.sum() == finite.size
    assert result.num_nonfinite == x.size - finite.size
    assert result.widths is not None
    assert (result.counts > 0).all()
    assert (np.diff(result.centers) >= 0).all()
    assert (result.widths <= np.abs(result.centers) / 64 + 1e-37).all()
    for value in finite:
        distance = np.abs(result.centers.astype(np.float64) - value)
        assert (distance <= result.widths / 2 * (1 + 1e-5) + np.abs(value) * 1e-6 + 1e-37).any()


@given(FLOATS, FLOATS)
def test_order_and_batches_do_not_matter(x: np.ndarray, y: np.ndarray) -> None:
    apart, joined = histogram(y, x), histogram(np.concatenate([x, y]))
    assert np.array_equal(apart.counts, joined.counts)
    assert np.array_equal(apart.centers, joined.centers)
    assert (apart.low, apart.high) == (joined.low, joined.high)


def test_range_is_exact_and_bins_end_at_it() -> None:
    x = np.array([-0.17, 0.3, 5.03], np.float32)
    result = histogram(x)
    assert result.widths is not None
    assert (result.low, result.high) == (float(x[0]), float(x[2]))
    assert result.centers[0] - result.widths[0] / 2 >= np.float32(-0.17) - 1e-6
    assert result.centers[-1] + result.widths[-1] / 2 <= np.float32(5.03) + 1e-5


def test_both_zeros_and_subnormals_are_one_bin() -> None:
    result = histogram(np.array([0.0, -0.0, 1e-44, 0.0], np.float32))
    assert result.counts.tolist() == [4]
    assert result.centers.tolist() == [0.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nonfinite_values_are_counted_and_poison_nothing(bad: float) -> None:
    accumulator = MinMaxAccumulator()
    accumulator.add(np.array([1, bad, -2], np.float32))
    accumulator.add(np.array([bad, bad], np.float32))
    result = accumulator.result()
    assert (result.low, result.high, result.num_nonfinite) == (-2.0, 1.0, 3)


def test_nothing_seen_gives_an_empty_range() -> None:
    assert histogram(np.zeros(0, np.float32)).counts.size == 0
    assert MinMaxAccumulator().result().high == 0.0
    assert histogram(np.array([np.nan], np.float32)).low == 0.0


def test_other_float_types_are_read() -> None:
    assert histogram(np.array([0.5, 2.0], np.float16)).high == 2.0
    assert histogram(np.array([0.5, 2.0], np.float64)).counts.sum() == 2
    strided = np.arange(12, dtype=np.float32).reshape(3, 4).T
    assert histogram(strided).counts.sum() == 12
