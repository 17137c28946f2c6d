"""Range estimators: from a histogram to the interval that a quantized tensor covers.

Pure functions `(histogram, grid, ...) -> (low, high)` with low <= 0 <= high, so that 0 is exact.
A tensor of zeros, or one that was never seen, gives (0, 0); the scale's floor is the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from irtools.statistics.base import HistogramResult

__all__ = [
    "Grid",
    "entropy_range",
    "kl_divergence",
    "minmax_range",
    "mse_range",
    "percentile_range",
    "squared_errors",
]

Range = tuple[float, float]

# Thresholds tried by `mse_range`: evenly between a quarter and all of the range, and towards
# the bulk of the data for tails that no even division would reach.
_EVEN_STEPS: Final = 56
_TAIL_STEPS: Final = 24
_TAIL_QUANTILE: Final = 0.99

_ENTROPY_BINS: Final = 2048
_ENTROPY_STEPS: Final = 64


@dataclass(frozen=True)
class Grid:
    """The integers that a range is mapped to.

    Attributes:
        qmin: Smallest (0 for u8, -127 for symmetric s8).
        qmax: Largest.
        symmetric: The range is [-m, m] and the zero point is the middle.
    """

    qmin: int = 0
    qmax: int = 255
    symmetric: bool = False

    @property
    def levels(self) -> int:
        """Number of integers."""
        return self.qmax - self.qmin + 1


def minmax_range(histogram: HistogramResult, grid: Grid = Grid()) -> Range:
    """Cover every value that was seen."""
    return _with_zero(histogram.low, histogram.high, grid)


def percentile_range(
    histogram: HistogramResult, grid: Grid = Grid(), percentile: float = 99.99
) -> Range:
    """Cover `percentile` % of the values, and leave out as many on either side.

    The quantiles are those of the signed values: taken of |x| they ruin one-sided tensors
    (onnxruntime issue 10571).
    """
    if not histogram.counts.sum():
        return 0.0, 0.0
    outside = (1 - percentile / 100) / 2
    low, high = _quantiles(histogram, np.array([outside, 1 - outside]))
    return _with_zero(float(low), float(high), grid)


def mse_range(histogram: HistogramResult, grid: Grid = Grid()) -> Range:
    """Minimize the mean squared error of rounding and clipping together.

    Thresholds clip both ends of the range where they exceed it, so the short end of a one-sided
    tensor is kept until the long end is as short. Then each end is moved on its own. Values are
    taken as spread evenly within their bin, and the error over a bin is integrated exactly.
    """
    full = _with_zero(histogram.low, histogram.high, grid)
    if full[0] == full[1]:
        return full
    lows, highs = _clipped(full, _thresholds(histogram, full))
    best = _argmin(histogram, grid, lows, highs)
    low, high = float(lows[best]), float(highs[best])
    if grid.symmetric:
        return low, high
    shrink = np.linspace(0.6, 1.0, 17)
    best = _argmin(histogram, grid, low * shrink, np.full(17, high))
    low = float(low * shrink[best])
    best = _argmin(histogram, grid, np.full(17, low), high * shrink)
    return low, float(high * shrink[best])


def entropy_range(histogram: HistogramResult, grid: Grid = Grid()) -> Range:
    """Minimize KL(P || Q) between the clipped values P and their quantized image Q.

    The method of TensorRT's calibrator (Migacz, GTC 2017) on the signed values: P has the
    clipped tail in its last bins, Q pools P into the grid's levels and spreads each pool evenly
    over its bins that are not empty.
    """
    full = _with_zero(histogram.low, histogram.high, grid)
    if full[0] == full[1]:
        return full
    # Exactly zero is no evidence about where to clip, and ReLU makes half of a tensor that.
    peak = max(-full[0], full[1])
    edges = np.linspace(-peak, peak, _ENTROPY_BINS + 1)
    counts = _rebin(histogram, edges)
    half = _ENTROPY_BINS // 2
    widths = np.unique(np.linspace(grid.levels // 2, half, _ENTROPY_STEPS).astype(int))
    costs = [kl_divergence(counts, half - width, half + width, grid.levels) for width in widths]
    threshold = edges[half + widths[int(np.argmin(costs))]]
    lows, highs = _clipped(full, np.array([threshold]))
    return float(lows[0]), float(highs[0])


def _with_zero(low: float, high: float, grid: Grid) -> Range:
    low, high = min(low, 0.0), max(high, 0.0)
    if grid.symmetric:
        peak = max(-low, high)
        return -peak, peak
    return low, high


def _clipped(full: Range, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.maximum(full[0], -thresholds), np.minimum(full[1], thresholds)


def _thresholds(histogram: HistogramResult, full: Range) -> np.ndarray:
    peak = max(-full[0], full[1])
    even = peak * np.linspace(0.25, 1.0, _EVEN_STEPS)
    outside = (1 - _TAIL_QUANTILE) / 2
    low, high = _quantiles(histogram, np.array([outside, 1 - outside]))
    bulk = max(-low, high, peak * 1e-6)
    return np.concatenate([even, np.geomspace(bulk, peak, _TAIL_STEPS)])


def _argmin(histogram: HistogramResult, grid: Grid, lows: np.ndarray, highs: np.ndarray) -> int:
    """Return which of the ranges gives the smallest squared error; ties go to the widest."""
    errors = squared_errors(histogram, grid, lows, highs)
    widths = highs - lows
    return int(np.lexsort((-widths, errors))[0])


def squared_errors(
    histogram: HistogramResult, grid: Grid, lows: np.ndarray, highs: np.ndarray
) -> np.ndarray:
    """Return the summed squared error of each of G ranges, [G].

    In units of the step s, the error of t = x / s is t - r with r = clip(rne(t), tmin, tmax).
    Its square has the antiderivative r / 12 + (t - r)^3 / 3, continuous over all of t.
    """
    scale = np.maximum((highs - lows) / (grid.qmax - grid.qmin), np.finfo(np.float64).tiny)
    if grid.symmetric:
        first = np.full(len(lows), float(grid.qmin) - _middle(grid))
    else:
        first = -np.rint(np.clip(-lows / scale, 0, grid.levels - 1))
    last = first + (grid.levels - 1)
    lower, upper, counts, near_zero = _split_near_zero(histogram, float(scale.min()) / 2)
    inverse = 1 / scale[:, None]
    at_lower = _antiderivative(lower * inverse, first[:, None], last[:, None])
    at_upper = _antiderivative(upper * inverse, first[:, None], last[:, None])
    width = (upper - lower) * inverse
    center = (upper + lower) / 2 * inverse
    point = np.square(center - np.clip(np.rint(center), first[:, None], last[:, None]))
    # The difference of antiderivatives loses its digits over a bin of no width.
    even = np.divide(at_upper - at_lower, width, out=point.copy(), where=width > 1e-3)
    return np.asarray((even @ counts) * np.square(scale) + near_zero)


def _split_near_zero(
    histogram: HistogramResult, limit: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return edges and counts of the bins beyond +-limit, and the energy of the others.

    What every scale rounds to zero costs x^2 whatever the scale: about half of the bins.
    """
    lower, upper = _bin_edges(histogram)
    near = np.maximum(np.abs(lower), np.abs(upper)) < limit
    squares = (np.square(lower) + lower * upper + np.square(upper)) / 3
    energy = float((squares * histogram.counts)[near].sum())
    return lower[~near], upper[~near], histogram.counts[~near], energy


def _antiderivative(t: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    r = np.clip(np.rint(t), first, last)
    rest = t - r
    return np.asarray(r / 12 + rest * rest * rest / 3)


def _middle(grid: Grid) -> int:
    """Return the zero point of a symmetric grid: 0, or 128 for u8."""
    return (grid.qmin + grid.qmax + 1) // 2


def _bin_edges(histogram: HistogramResult) -> tuple[np.ndarray, np.ndarray]:
    centers = histogram.centers.astype(np.float64)
    if histogram.widths is None:
        return centers, centers
    half = histogram.widths.astype(np.float64) / 2
    # Centers and widths are float32, the ends of the range are exact.
    lower, upper = ((centers + side * half).clip(histogram.low, histogram.high) for side in (-1, 1))
    return lower, upper


def _quantiles(histogram: HistogramResult, shares: np.ndarray) -> np.ndarray:
    """Return the values below which the shares of all values lie."""
    lower, upper = _bin_edges(histogram)
    total = np.cumsum(histogram.counts)
    wanted = shares * total[-1]
    index = np.searchsorted(total, wanted).clip(0, len(total) - 1)
    before = total[index] - histogram.counts[index]
    inside = ((wanted - before) / histogram.counts[index]).clip(0, 1)
    return np.asarray(lower[index] + inside * (upper - lower)[index])


def _rebin(histogram: HistogramResult, edges: np.ndarray) -> np.ndarray:
    """Spread the counts over equal bins, evenly within each bin of the histogram."""
    lower, upper = _bin_edges(histogram)
    zero = (lower <= 0) & (upper >= 0)
    counts = np.where(zero, 0, histogram.counts)
    # A step at a bin without width is a jump of the cumulative counts.
    places = np.stack([lower, np.maximum(upper, np.nextafter(lower, np.inf))], axis=1).ravel()
    after = np.cumsum(counts)
    heights = np.stack([after - counts, after], axis=1).ravel()
    below = np.interp(edges, places, heights)
    below[0], below[-1] = 0.0, after[-1]
    return np.diff(below)


def kl_divergence(counts: np.ndarray, start: int, stop: int, levels: int) -> float:
    inside = counts[start:stop]
    p = inside.copy()
    p[0] += counts[:start].sum()
    p[-1] += counts[stop:].sum()
    pool = np.arange(len(p)) * levels // len(p)
    filled = inside > 0
    totals = np.bincount(pool, weights=inside, minlength=levels)
    cells = np.bincount(pool, weights=filled, minlength=levels)
    q = np.where(filled, (totals / np.maximum(cells, 1))[pool], 0.0)
    if not p.sum() or not q.sum():
        return float("inf")
    p, q = p / p.sum(), q / q.sum()
    seen = p > 0
    return float((p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-12))).sum())
