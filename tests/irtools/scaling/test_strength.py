"""The closed form is the error that rounding makes, and the scales that it chooses lower it."""

from __future__ import annotations

import numpy as np
import pytest

from irtools.scaling.evidence import Channels, WeightView
from irtools.scaling.strength import Reader, Rounding, find_strength

K, N, ROWS = 64, 96, 4000


def drawn(seed: int, *, outliers: int = 3, dead: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return activations [ROWS, K] with some large channels, and a weight [K, N]."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.normal(size=K) * 0.5)
    sizes[:outliers] *= 30
    x = rng.normal(size=(ROWS, K)) * sizes + rng.normal(size=K) * 0.3
    x[:, K - dead :] = 0 if dead else x[:, K - dead :]
    w = rng.normal(size=(K, N)) / np.sqrt(K)
    return x, w


def reader(x: np.ndarray, w: np.ndarray, *, by_token: bool = False) -> Reader:
    channels = Channels(x.min(axis=0), x.max(axis=0), np.square(x).mean(axis=0), len(x))
    view = WeightView.of(w.astype(np.float32)[None, :, :, None])
    return Reader(np.arange(1, K + 1), channels, view, by_token)


def rounded(x: np.ndarray, levels: int) -> np.ndarray:
    """Round to an affine range for the whole tensor."""
    low, high = min(x.min(), 0.0), max(x.max(), 0.0)
    step = (high - low) / levels
    return np.rint(x / step) * step


def rounded_by_token(x: np.ndarray) -> np.ndarray:
    """Round every row to a symmetric range of its own."""
    step = np.abs(x).max(axis=1, keepdims=True) / 127
    return np.rint(x / step) * step


def relative_error(
    x: np.ndarray, w: np.ndarray, s: np.ndarray, rounding: Rounding, *, by_token: bool = False
) -> float:
    """Round a product and compare it with what it was."""
    y, scaled = x @ w, w * s[:, None]
    block = rounding.block or K
    parts = scaled.reshape(K // block, block, N)
    steps = np.abs(parts).max(axis=1, keepdims=True) / rounding.weight_levels
    weight = (np.rint(parts / steps) * steps).reshape(K, N)
    data = rounded(x / s, rounding.activation_levels) if rounding.activation_levels else x / s
    data = rounded_by_token(x / s) if by_token else data
    return float(np.square(data @ weight - y).mean() / np.square(y).mean())


INT8, INT4 = Rounding(), Rounding(activation_levels=0, weight_levels=8, block=32)


@pytest.mark.parametrize("rounding", [INT8, INT4], ids=["int8", "int4"])
@pytest.mark.parametrize("seed", range(3))
def test_the_closed_form_is_the_error(rounding: Rounding, seed: int) -> None:
    x, w = drawn(seed)
    found = find_strength(K, [reader(x, w)], rounding)
    for scales, expected in ((np.ones(K), found.before), (found.scales, found.after)):
        error = relative_error(x, w, scales, rounding)
        assert abs(10 * np.log10(error / expected)) < 1.0


def spiky(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return activations of which some channels are large in few rows, and a weight."""
    x, w = drawn(seed, outliers=0)
    rare = np.random.default_rng(seed + 50).random((ROWS, 8)) < 0.01
    x[:, :8] *= np.where(rare, 100, 1)
    return x, w


def gelu(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what GELU makes of normal numbers, mostly next to nothing, and a weight."""
    x, w = drawn(seed, outliers=0)
    x = x - 1.0
    return x / (1 + np.exp(-1.702 * x)), w


@pytest.mark.parametrize("make", [drawn, spiky, gelu])
@pytest.mark.parametrize("seed", range(2))
def test_the_error_of_ranges_for_each_token_is_foreseen(make, seed: int) -> None:
    """Of the scales that were found, and within 1.5 dB of ordinary ones."""
    x, w = make(seed)
    found = find_strength(K, [reader(x, w, by_token=True)], INT8)
    for scales, expected, near in ((np.ones(K), found.before, 1.6), (found.scales, found.after, 1)):
        error = relative_error(x, w, scales, INT8, by_token=True)
        assert abs(10 * np.log10(error / expected)) < near


def test_rows_with_large_numbers_cost_the_others_nothing_with_ranges_of_their_own() -> None:
    """So scales for fixed ranges, which follow the largest row, are too strong for these."""
    x, w = spiky(3)
    fixed, own = (find_strength(K, [reader(x, w, by_token=way)], INT8) for way in (False, True))
    errors = [relative_error(x, w, f.scales, INT8, by_token=True) for f in (fixed, own)]
    assert 10 * np.log10(errors[0] / errors[1]) > 3.0
    assert np.ptp(np.log(own.scales)) < np.ptp(np.log(fixed.scales))


def test_equal_steps_for_both_sides_make_equal_errors() -> None:
    """Where no channel stands out the best scales are the root of sizes on both sides."""
    x, w = drawn(4, outliers=0)
    found = find_strength(K, [reader(x, w, by_token=True)], INT8).scales
    root = np.sqrt(np.sqrt(np.square(x).mean(axis=0)) / np.sqrt(np.square(w).sum(axis=1)))
    ratio = np.log(found / root)
    assert ratio.std() < 0.1


@pytest.mark.parametrize(("rounding", "least_db"), [(INT8, 8.0), (INT4, 0.5)], ids=["int8", "int4"])
def test_scales_gain_what_is_promised(rounding: Rounding, least_db: float) -> None:
    x, w = drawn(7)
    found = find_strength(K, [reader(x, w)], rounding)
    assert found.gain_db > least_db
    errors = [relative_error(x, w, s, rounding) for s in (np.ones(K), found.scales)]
    assert 10 * np.log10(errors[0] / errors[1]) == pytest.approx(found.gain_db, abs=1.0)


def test_other_data_beyond_the_range_is_foreseen() -> None:
    """Channels that are all as large as the range, few of whose values were seen."""
    rng = np.random.default_rng(0)
    w, found = rng.normal(size=(K, N)) / np.sqrt(K), []
    fine = Rounding(activation_levels=10**6, weight_levels=1e6)
    for _ in range(20):
        x, other = (np.abs(rng.normal(size=(rows, K))) for rows in (100, ROWS))
        x, other = x / x.max(axis=0), other / x.max(axis=0)
        foreseen = find_strength(K, [reader(x, w)], fine).before
        lost = np.square((other.clip(max=1.0) - other) @ w).mean() / np.square(other @ w).mean()
        found.append((foreseen, lost))
    foreseen, lost = np.mean(found, axis=0)
    assert 0.4 < foreseen / lost < 2.5


def test_few_samples_make_channels_less_alike() -> None:
    x, w = drawn(8)
    spreads = []
    for rows in (20, ROWS):
        channels = Channels(x.min(axis=0), x.max(axis=0), np.square(x).mean(axis=0), rows)
        view = reader(x, w)
        found = find_strength(K, [Reader(view.units, channels, view.weight)], INT8)
        spreads.append(np.ptp(np.log(found.scales)))
    assert spreads[0] < spreads[1]


def test_both_ends_of_the_line_are_worse() -> None:
    x, w = drawn(2)
    best = find_strength(K, [reader(x, w)], INT8)
    for alpha in (0.0, 1.0):
        fixed = find_strength(K, [reader(x, w)], INT8, alpha)
        assert fixed.after > best.after
    assert best.after < best.before


def test_the_largest_activation_stays_where_it_was() -> None:
    """So nothing that was within float16 leaves it."""
    x, w = drawn(3)
    found = find_strength(K, [reader(x, w)], INT8)
    assert np.abs(x / found.scales).max() == pytest.approx(np.abs(x).max(), rel=1e-9)


def test_channels_that_are_always_zero_have_an_ordinary_scale() -> None:
    x, w = drawn(4, dead=5)
    found = find_strength(K, [reader(x, w)], INT8)
    assert np.isfinite(found.scales).all()
    assert found.scales.max() / found.scales.min() <= 1e4
    assert found.gain_db > 3


def test_powers_of_two_cost_little() -> None:
    x, w = drawn(5)
    free = find_strength(K, [reader(x, w)], INT8)
    powers = find_strength(K, [reader(x, w)], INT8, powers=True)
    assert np.array_equal(np.log2(powers.scales) % 1, np.zeros(K))
    assert 0 <= free.gain_db - powers.gain_db < 3.5


def test_equal_channels_leave_nothing_to_gain() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.uniform(-1, 1, (ROWS, K)), rng.choice([-1.0, 1.0], (K, N))
    assert find_strength(K, [reader(x, w)], INT8).gain_db < 0.5


def test_all_readers_count() -> None:
    """A channel that one of two products does not read at all is scaled for the other."""
    x, w = drawn(6, outliers=0)
    blind = w.copy()
    blind[0] = 0
    other = w.copy()
    other[0] *= 50
    one = find_strength(K, [reader(x, blind)], INT8).scales
    both = find_strength(K, [reader(x, blind), reader(x, other)], INT8).scales
    assert both[0] / np.median(both) < one[0] / np.median(one)
