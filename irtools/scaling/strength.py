"""How strongly each channel is scaled: the s that leaves the products after it the least error.

For Y = X W with X' = X / s and W' = diag(s) W rounded, independently and evenly within a step:

    activation   d^2 / 12  sum_k s_k^2 ||W_k||^2             d = (max x/s - min x/s) / levels
    weight       sum_n t_n^2 / 12  sum_k E[x_k^2] / s_k^2    t_n = max_k s_k |W_kn| / levels

which is the expected tr(E^T H E) of the Gram matrix H of X: rounding errors of different channels
have nothing to do with each other, so that only its diagonal counts. Other data than that of
calibration reaches beyond the range, the more often the more channels fill it. With normal tails
the largest of n values, p, is exceeded with probability 1 / n, by an exponential excess of mean b:

    clipping     2 / n  sum_k b_k^2 exp((p_k - s_k T) / b_k) ||W_k||^2      b_k = p_k / (2 ln n)

where T is the end of the range of X / s. Divided by the signal sum_k E[x_k^2] ||W_k||^2 and added
up over the products that read the channels, in closed form: no model is run. The s is looked for
along two lines, in which W alone, X alone and everything between are points:

    s = peak(x)^a / peak(W)^(1 - a)      0 <= a <= 1        (SmoothQuant, Xiao et al. 2023)
    s = max(1, peak(x) / c)              c below max peak   (OS+, Wei et al. 2023)

With a range for each token nothing is clipped, and d is that of a token: of its largest |x_k / s_k|
over 127. A channel that reaches its peak p in a share E[x^2] / p^2 of all tokens, and is next to
nothing in the others, has both of its figures; of channels that know nothing of each other the
largest of a token is then

    E[d^2]       c sum_k (p_k / s_k)^2 r_k prod_(j larger) (1 - r_j) / 127^2

with r_k = E[x_k^2] / p_k^2 and c = 0.6, since what is near a peak is mostly below it: without c it
is 1.5 to 1.8 times too much, for normal numbers and after GELU alike. Large channels of single
tokens cost the others nothing, so that root mean squares are sizes, too; these are the lines:

    s = peak(x)^a / rms(W)^(1 - a)       rms(x)^a / rms(W)^(1 - a)

With as many steps for both, a = 1/2 on the second makes activation and weight errors least where
no channel stands out: their sum is then a multiple of sum_k s_k^2 ||W_k||^2 sum_k E[x_k^2] / s_k^2.

Blocks of 4 bits have no activation error, and their weights are rounded in fact; there
E[x^2]^(a / 2) is the line (AWQ, Lin et al. 2024).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from irtools.scaling.evidence import Channels, WeightView

__all__ = ["Rounding", "Strength", "find_strength"]

_LARGEST_RATIO = 1e4
"""Between two scales of a site: what is beyond is of no use and leads to numbers near the ends."""

_NEAR_PEAK = 0.6
"""E[x^2] of what is counted as a channel's peak, in squares of the peak."""

_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Rounding:
    """How products are rounded.

    Attributes:
        activation_levels: Steps of an activation's range; 0: it is not rounded.
        weight_levels: Steps between 0 and the largest magnitude of a weight.
        block: Input channels that share a scale of the weight; 0: all.
    """

    activation_levels: int = 255
    weight_levels: float = 127.0
    block: int = 0


ROUNDINGS: Mapping[str, Rounding] = MappingProxyType(
    {"int8": Rounding(), "int4": Rounding(activation_levels=0, weight_levels=8, block=32)}
)
"""What models are prepared for, by the option `rounding` of passes."""


@dataclass(frozen=True, eq=False)
class Strength:
    """What was found for a site.

    Attributes:
        scales: [units].
        before: Relative squared error of the products' results, summed, as they are.
        after: With the scales.
    """

    scales: np.ndarray
    before: float
    after: float

    @property
    def is_change(self) -> bool:
        """Whether any scale differs from the others."""
        return bool(self.scales.size and self.scales.max() > self.scales.min())

    @property
    def gain_db(self) -> float:
        """Signal to rounding noise that is gained, in decibels."""
        return float(10 * np.log10(max(self.before, 1e-30) / max(self.after, 1e-30)))


@dataclass(frozen=True, eq=False)
class Reader:
    """A product at a site.

    Attributes:
        units: Unit of every input channel, [C], from 1; 0 keeps its scale.
        channels: Of its input.
        weight: Its weight.
        by_token: Its input has a range for each token, all channels of it together.
    """

    units: np.ndarray
    channels: Channels
    weight: WeightView
    by_token: bool = False


def find_strength(
    units: int,
    readers: Sequence[Reader],
    rounding: Rounding,
    alpha: float | None = None,
    *,
    powers: bool = False,
) -> Strength:
    """Return the scales of a site that leave the least error.

    Args:
        units: How many there are.
        readers: The products that are rounded.
        rounding: How.
        alpha: The first line at this place, and nothing else is tried.
        powers: Powers of two only, which change no digit of a number.
    """
    sizes = _by_unit(units, readers, rounding)
    before = _error(np.ones(units + 1), readers, rounding)
    best, least = np.ones(units), before
    lines = _token_lines if any(reader.by_token for reader in readers) else _lines
    for scales in lines(sizes, rounding, alpha):
        scales = _settled(scales, sizes.peaks)
        if powers:
            scales = 2.0 ** np.rint(np.log2(scales))
        found = _error(np.concatenate([[1.0], scales]), readers, rounding)
        if found < least or alpha is not None:
            best, least = scales, found
    return Strength(best, before, least)


@dataclass(frozen=True, eq=False)
class _Sizes:
    """How large activations and weights are, the largest reader of each unit, [units] each.

    Attributes:
        peaks: Largest |x|; root mean square where activations are not rounded.
        rms: Root mean square of x.
        weights: Largest |W|.
        energy: Root of ||W_k||^2 relative to the signal, summed over the readers.
    """

    peaks: np.ndarray
    rms: np.ndarray
    weights: np.ndarray
    energy: np.ndarray


def _by_unit(units: int, readers: Sequence[Reader], rounding: Rounding) -> _Sizes:
    peaks, rms, weights, energy = (np.zeros(units + 1) for _ in range(4))
    for reader in readers:
        x, w = reader.channels, reader.weight
        size, root = np.maximum(np.abs(x.low), np.abs(x.high)), np.sqrt(x.square)
        np.maximum.at(peaks, reader.units, size if rounding.activation_levels else root)
        np.maximum.at(rms, reader.units, root)
        np.maximum.at(weights, reader.units, w.peaks.max(axis=2).reshape(-1))
        np.add.at(energy, reader.units, w.energy / max(float(x.square @ w.energy), _TINY))
    return _Sizes(peaks[1:], rms[1:], weights[1:], np.sqrt(energy[1:]))


def _lines(sizes: _Sizes, rounding: Rounding, alpha: float | None) -> Iterator[np.ndarray]:
    if not sizes.peaks.any():
        return
    x, w = _filled(sizes.peaks), _filled(sizes.weights)
    for a in _strengths(alpha):
        yield x**a if not rounding.activation_levels else x**a / w ** (1 - a)
    if alpha is None and rounding.activation_levels:
        for step in range(1, 17):
            yield np.maximum(1.0, x / (x.max() * 2 ** (-step / 2)))


def _token_lines(sizes: _Sizes, rounding: Rounding, alpha: float | None) -> Iterator[np.ndarray]:
    if not sizes.peaks.any():
        return
    w = _filled(sizes.energy)
    for x in (_filled(sizes.peaks), _filled(sizes.rms)):
        for a in _strengths(alpha):
            yield x**a / w ** (1 - a)


def _strengths(alpha: float | None) -> Sequence[float]:
    return [float(a) for a in np.linspace(0, 1, 21)] if alpha is None else [alpha]


def _filled(sizes: np.ndarray) -> np.ndarray:
    """Return sizes with the smallest one in the place of zeros; ones where there are no others."""
    live = sizes > 0
    return np.where(live, sizes, sizes[live].min() if live.any() else 1.0)


def _settled(scales: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """Keep scales within a ratio of each other, and the largest activation where it was."""
    scales = np.maximum(scales, scales.max() / _LARGEST_RATIO)
    return np.asarray(scales * ((peaks / scales).max() / peaks.max()))


def _error(factors: np.ndarray, readers: Sequence[Reader], rounding: Rounding) -> float:
    """Return the expected relative squared error of the products, summed."""
    total = 0.0
    for reader in readers:
        s, x, w = factors[reader.units], reader.channels, reader.weight
        signal = float(x.square @ w.energy)
        if signal <= 0:
            continue
        rounds = _token_noise if reader.by_token else _activation_noise
        noise = rounds(s, x, w, rounding.activation_levels)
        total += (noise + _weight_noise(s, x, w, rounding)) / signal
    return total


def _activation_noise(s: np.ndarray, x: Channels, w: WeightView, levels: int) -> float:
    if not levels:
        return 0.0
    high, low = max((x.high / s).max(), 0.0), min((x.low / s).min(), 0.0)
    rounded = ((high - low) / levels) ** 2 / 12 * (s**2 @ w.energy)
    clipped = _beyond(x.high, s * high, x.count) + _beyond(-x.low, -s * low, x.count)
    return float(rounded + clipped @ w.energy)


def _token_noise(s: np.ndarray, x: Channels, w: WeightView, levels: int) -> float:
    if not levels:
        return 0.0
    tops = np.square(np.maximum(np.maximum(np.abs(x.low), np.abs(x.high)) / s, _TINY))
    shares = np.minimum(x.square / s**2 / tops, 1.0)
    order = np.argsort(-tops, kind="stable")
    tops, shares = tops[order], shares[order]
    smaller = np.cumprod(np.concatenate([[1.0], 1 - shares[:-1]]))
    largest = float((tops * shares * smaller).sum())
    return _NEAR_PEAK * largest / (levels // 2) ** 2 / 12 * float(s**2 @ w.energy)


def _beyond(peaks: np.ndarray, ends: np.ndarray, count: int) -> np.ndarray:
    """Return the expected squared excess of other data over the end of each channel's range."""
    tail = np.maximum(peaks, _TINY) / (2 * np.log(max(count, 3)))
    reach = np.exp(np.minimum(peaks - ends, 0.0) / tail)
    return np.asarray(np.where(peaks > 0, 2 * tail**2 * reach / max(count, 3), 0.0))


def _weight_noise(s: np.ndarray, x: Channels, w: WeightView, rounding: Rounding) -> float:
    """Return the expected error of 8 bits, and the error itself of coarse steps.

    Where a block has 16 steps, what is largest in it is hardly rounded at all, and scales exist to
    make the channels that count the largest: there an even error would miss the point.
    """
    groups, inner, outer, taps = w.values.shape
    factor, power = s.reshape(groups, inner, 1), (x.square / s**2).reshape(groups, inner)
    if not rounding.block:
        steps = (w.peaks * factor.astype(np.float32)).max(axis=1) / rounding.weight_levels
        even = np.square(steps, dtype=np.float64).sum(axis=1) * taps
        return float(even @ power.sum(axis=1) / 12)
    block = rounding.block if inner % rounding.block == 0 else inner
    scaled = w.values * factor[..., None].astype(np.float32)
    blocks = scaled.reshape(groups, inner // block, block, outer * taps)
    steps = np.abs(blocks).max(axis=2, keepdims=True) / rounding.weight_levels
    steps = np.maximum(steps, _TINY)
    error = np.square(np.rint(blocks / steps) * steps - blocks).sum(axis=3, dtype=np.float64)
    return float((error.reshape(groups, inner) * power).sum())
