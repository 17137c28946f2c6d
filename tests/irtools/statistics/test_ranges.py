"""Range estimators on the toy distributions of the fact sheet."""

from __future__ import annotations

from collections.abc import Callable
from math import erf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irtools.statistics import HistogramResult
from irtools.statistics.histogram import HistogramAccumulator
from irtools.statistics.ranges import (
    Grid,
    entropy_range,
    kl_divergence,
    minmax_range,
    mse_range,
    percentile_range,
    squared_errors,
)

U8 = Grid(0, 255)
S8 = Grid(-127, 127, symmetric=True)
SIZE = 100_000


def gauss(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal(SIZE)


def student(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_t(3, SIZE)


def gelu(rng: np.random.Generator) -> np.ndarray:
    x = 2 * rng.standard_normal(SIZE)
    return 0.5 * x * (1 + np.vectorize(erf)(x / np.sqrt(2)))


def outlier_channels(rng: np.random.Generator) -> np.ndarray:
    x = rng.standard_normal((SIZE // 200, 200))
    x[:, :2] *= 20
    return x.ravel()


def histogram(x: np.ndarray) -> HistogramResult:
    accumulator = HistogramAccumulator()
    accumulator.update(x.astype(np.float32), None)
    return accumulator.result()


def sqnr(x: np.ndarray, chosen: tuple[float, float], grid: Grid) -> float:
    """Quantize as ONNX does and return the signal to noise ratio in dB."""
    low, high = chosen
    scale = (high - low) / (grid.qmax - grid.qmin)
    zero = 0 if grid.symmetric else np.rint(grid.qmin - low / scale)
    q = np.clip(np.rint(x / scale) + zero, grid.qmin, grid.qmax)
    return float(10 * np.log10(np.square(x).sum() / np.square(x - scale * (q - zero)).sum()))


def best_clip(x: np.ndarray, grid: Grid) -> float:
    """Return the best ratio over 300 clips, by trying them on the values themselves."""
    low, high = min(x.min(), 0), max(x.max(), 0)
    peak = max(-low, high)
    clips = peak * np.linspace(0.01, 1, 300)
    pairs = [(-t, t) if grid.symmetric else (max(low, -t), min(high, t)) for t in clips]
    return max(sqnr(x, pair, grid) for pair in pairs)


KINDS = [gauss, student, gelu, outlier_channels]


@pytest.mark.parametrize("grid", [U8, S8], ids=["u8", "s8"])
@pytest.mark.parametrize("kind", KINDS)
def test_mse_is_as_good_as_trying_every_clip_on_the_values(
    kind: Callable[[np.random.Generator], np.ndarray], grid: Grid
) -> None:
    x = kind(np.random.default_rng(0))
    assert sqnr(x, mse_range(histogram(x), grid), grid) > best_clip(x, grid) - 0.15


# The energy of the others is that of their few largest values, which are new in every draw.
@pytest.mark.parametrize("kind", [gauss, gelu])
def test_mse_never_loses_to_the_others_on_held_out_data(
    kind: Callable[[np.random.Generator], np.ndarray],
) -> None:
    rng = np.random.default_rng(1)
    seen, fresh = kind(rng), kind(rng)
    result = histogram(seen)
    mse = sqnr(fresh, mse_range(result, U8), U8)
    others = [minmax_range(result, U8), entropy_range(result, U8)]
    others += [percentile_range(result, U8, p) for p in (99.9, 99.99, 99.999)]
    assert all(mse > sqnr(fresh, other, U8) - 0.1 for other in others)


def test_figures_of_the_fact_sheet() -> None:
    rng = np.random.default_rng(2)
    x, fresh = gauss(rng), gauss(rng)
    result = histogram(x)
    assert sqnr(fresh, minmax_range(result, U8), U8) == pytest.approx(39.5, abs=1)
    assert sqnr(fresh, percentile_range(result, U8, 99.9), U8) == pytest.approx(37.6, abs=1.0)
    assert sqnr(fresh, percentile_range(result, U8, 99.99), U8) == pytest.approx(40.7, abs=0.5)
    assert sqnr(fresh, mse_range(result, U8), U8) == pytest.approx(40.7, abs=0.5)


def test_percentile_is_two_sided_on_the_signed_values() -> None:
    rng = np.random.default_rng(3)
    x = np.concatenate([rng.uniform(-1, 0, 1000), rng.uniform(0, 100, 99_000)])
    low, high = percentile_range(histogram(x), U8, 99.0)
    assert low == pytest.approx(np.quantile(x, 0.005), rel=0.02)
    assert high == pytest.approx(np.quantile(x, 0.995), rel=0.02)


@pytest.mark.parametrize("estimate", [minmax_range, percentile_range, mse_range, entropy_range])
@pytest.mark.parametrize("grid", [U8, S8], ids=["u8", "s8"])
class TestEveryEstimator:
    def test_zero_lies_inside(self, estimate: Callable, grid: Grid) -> None:
        low, high = estimate(histogram(np.linspace(3, 4, 500)), grid)
        assert low <= 0 < high <= 4.0
        assert low == (-high if grid.symmetric else 0.0)

    @pytest.mark.parametrize("x", [np.zeros(0), np.zeros(9), np.array([np.nan])])
    def test_nothing_but_zero_gives_no_range(
        self, estimate: Callable, grid: Grid, x: np.ndarray
    ) -> None:
        assert estimate(histogram(x), grid) == (0.0, 0.0)

    @pytest.mark.parametrize("value", [1e-30, -2.5, 3e38])
    def test_one_value(self, estimate: Callable, grid: Grid, value: float) -> None:
        low, high = estimate(histogram(np.array([value])), grid)
        assert max(-low, high) == pytest.approx(abs(value), rel=0.01)

    def test_histogram_without_widths(self, estimate: Callable, grid: Grid) -> None:
        counts = np.array([1, 10, 1], np.int64)
        bare = HistogramResult(np.array([-1, 0.5, 1], np.float32), counts, -1.0, 1.0)
        low, high = estimate(bare, grid)
        assert -1 <= low <= 0 <= high <= 1


@pytest.mark.parametrize("grid", [U8, S8, Grid(0, 15)], ids=["u8", "s8", "u4"])
def test_squared_errors_are_those_of_quantizing_what_lies_in_the_bins(grid: Grid) -> None:
    """Against brute force: every bin is filled with values, and each is quantized as ONNX does."""
    rng = np.random.default_rng(0)
    centers = np.sort(rng.normal(size=40)).astype(np.float32)
    widths = np.minimum(np.abs(centers) / 64, 1e-2).astype(np.float32)
    counts = rng.integers(1, 9, 40)
    result = HistogramResult(
        centers, counts, float((centers - widths).min()), float((centers + widths).max()), widths
    )
    lows = np.array([-2.0, -1.3, -0.7, -3.0])
    highs = -lows if grid.symmetric else np.array([2.0, 0.9, 1.7, 0.31])
    found = squared_errors(result, grid, lows, highs)
    inside = np.linspace(-0.5, 0.5, 2001)
    x = centers[:, None].astype(np.float64) + widths[:, None] * inside
    for low, high, error in zip(lows, highs, found, strict=True):
        scale = (high - low) / (grid.qmax - grid.qmin)
        zero = 0 if grid.symmetric else np.rint(grid.qmin - low / scale)
        q = np.clip(np.rint(x / scale) + zero, grid.qmin, grid.qmax)
        wanted = (np.square(x - scale * (q - zero)).mean(axis=1) * counts).sum()
        assert error == pytest.approx(wanted, rel=2e-3)


def test_divergence_is_that_of_the_calibrator_it_is_named_after() -> None:
    """Against the definition, loop by loop: tails join the last bins, pools are spread evenly."""
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 5, 64).astype(float)
    counts[:3], counts[-5:] = 40.0, 7.0
    start, stop, levels = 10, 50, 8
    p = counts[start:stop].copy()
    p[0] += counts[:start].sum()
    p[-1] += counts[stop:].sum()
    q = np.zeros_like(p)
    for level in range(levels):
        pool = [i for i in range(len(p)) if i * levels // len(p) == level]
        filled = [i for i in pool if counts[start + i] > 0]
        for i in filled:
            q[i] = sum(counts[start + j] for j in pool) / len(filled)
    p, q = p / p.sum(), q / q.sum()
    wanted = sum(a * np.log(a / max(b, 1e-12)) for a, b in zip(p, q, strict=True) if a > 0)
    assert kl_divergence(counts, start, stop, levels) == pytest.approx(wanted)


def test_zeros_are_no_evidence_where_to_clip() -> None:
    """ReLU makes zeros of half a tensor: the entropy range is that of the other half."""
    x = np.abs(student(np.random.default_rng(4)))
    zeros = np.concatenate([x, np.zeros(10 * SIZE)])
    assert entropy_range(histogram(zeros), U8) == entropy_range(histogram(x), U8)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40))
def test_estimates_stay_inside_what_was_seen(values: list[float]) -> None:
    result = histogram(np.array(values))
    for estimate in (percentile_range, mse_range, entropy_range):
        low, high = estimate(result, U8)
        assert min(*values, 0) - 1e-6 <= low <= 0 <= high <= max(*values, 0) + 1e-6
