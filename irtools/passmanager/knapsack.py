"""Choosing a level for each of many things: a knapsack.

Minimise the sum of costs under a wanted sum of gains, by dynamic programming over rounded gains
(SPDY, Frantar & Alistarh 2022; ZipLM, Kurtic et al. 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Choice", "choose_evenly", "choose_levels", "choose_within"]

_BUCKETS = 2000
_SUMS = 100_000
"""Partial sums that are looked at together."""
_UNBOUNDED = 1e30
"""Stands for no limit."""
_STEPS = 48
"""Of the search for a price."""


@dataclass(frozen=True)
class Choice:
    """The levels of one thing.

    Attributes:
        costs: Predicted loss at each level.
        gains: Predicted gain at each level, none of them negative, that of level 0 nothing.
    """

    costs: np.ndarray
    gains: np.ndarray


def choose_levels(
    choices: Sequence[Choice], wanted: float, buckets: int = _BUCKETS
) -> tuple[int, ...] | None:
    """Return the level of each thing with the least total cost whose gains reach `wanted`.

    Gains are rounded down to that part of `wanted`, so the answer reaches it for sure and is
    optimal up to that rounding. None where all together do not reach it.
    """
    if wanted <= 0:
        return (0,) * len(choices)
    if sum(float(c.gains.max()) for c in choices) < wanted:
        return None
    unit = wanted / buckets
    steps = [np.minimum(np.floor(c.gains / unit + 1e-9), buckets).astype(int) for c in choices]
    best = np.full(buckets + 1, np.inf)
    best[0] = 0.0
    taken = []
    for choice, gained in zip(choices, steps, strict=True):
        best, origin = _extend(best, choice.costs, gained)
        taken.append(origin)
    # Rounding everything down may lose up to one bucket each.
    reached = np.flatnonzero(np.isfinite(best))
    at = buckets if np.isfinite(best[buckets]) else int(reached[-1])
    return _walk_back(taken, at)


def _extend(
    best: np.ndarray, costs: np.ndarray, gained: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Add one thing: least cost per bucket, and the (level, earlier bucket) that it comes from."""
    last = len(best) - 1
    totals = np.full_like(best, np.inf)
    origin = np.full((len(best), 2), -1, np.int32)
    for level, (cost, step) in enumerate(zip(costs, gained, strict=True)):
        sources = np.arange(last + 1) - step
        # Whatever exceeds the last bucket lands in it.
        sources[last] = last - step + int(np.argmin(best[last - step :]))
        offered = np.where(sources >= 0, best[np.maximum(sources, 0)] + cost, np.inf)
        better = offered < totals
        totals[better] = offered[better]
        origin[better] = np.stack([np.full(last + 1, level), sources], axis=1)[better]
    return totals, origin


def _walk_back(taken: list[np.ndarray], at: int) -> tuple[int, ...]:
    levels = []
    for origin in reversed(taken):
        level, at = origin[at]
        levels.append(int(level))
    return tuple(reversed(levels))


def choose_evenly(choices: Sequence[Choice], wanted: float) -> tuple[int, ...] | None:
    """Return the smallest share of its own gain that everything must give to reach `wanted`."""
    most = [float(c.gains.max()) for c in choices]
    for share in np.linspace(0, 1, 101):
        levels = tuple(
            int(np.searchsorted(c.gains, share * top - 1e-12)) if top else 0
            for c, top in zip(choices, most, strict=True)
        )
        if sum(float(c.gains[i]) for c, i in zip(choices, levels, strict=True)) >= wanted:
            return levels
    return None


def choose_within(
    costs: Sequence[np.ndarray], uses: Sequence[np.ndarray], limits: Sequence[float]
) -> tuple[int, ...] | None:
    """Return the level of each thing with the least total cost whose uses stay within limits.

    The best of all where there are few partial sums. Of many things each takes the level of least
    cost plus prices times uses, for the lowest prices that keep the limits (a Lagrangian
    relaxation); what is left of the limits then goes to the single changes that gain most. That is
    off the best by no more than a few things can gain. None where even the least uses exceed a
    limit, or where no price was found that keeps all of them at once.

    Args:
        costs: Of each thing, [levels].
        uses: Of each thing, [limits, levels]; none negative.
        limits: What the uses of all things may add up to.
    """
    most = np.minimum(np.asarray(limits, np.float64) * (1 + 1e-9), _UNBOUNDED)
    least = np.sum([use.min(axis=1) for use in uses], axis=0)
    if (least > most).any():
        return None
    exact = _best_of_all(costs, uses, most)
    if exact is not None:
        return exact or None
    padded, wide = _padded(costs, uses)
    levels = _priced(padded, wide, most, np.zeros(0))
    return None if levels is None else _improved(padded, wide, most, levels)


def _best_of_all(
    costs: Sequence[np.ndarray], uses: Sequence[np.ndarray], most: np.ndarray
) -> tuple[int, ...] | None:
    """Return the best levels; none of them where none fit. None where there are too many sums."""
    least = np.stack([found.min(axis=1) for found in uses], axis=1)
    ahead = least.sum(axis=1, keepdims=True) - np.cumsum(least, axis=1)
    total, used = np.zeros(1), np.zeros((len(most), 1))
    taken: list[tuple[np.ndarray, np.ndarray]] = []
    for number, (cost, use) in enumerate(zip(costs, uses, strict=True)):
        if len(total) * len(cost) > _SUMS:
            return None
        sums = (used[:, :, None] + use[:, None, :]).reshape(len(most), -1)
        later = ahead[:, number, None]
        kept = np.flatnonzero((sums + later <= most[:, None]).all(axis=0))
        if not len(kept):
            return ()
        total, used = (total[:, None] + cost).reshape(-1)[kept], sums[:, kept]
        taken.append((kept // len(cost), kept % len(cost)))
    at, levels = int(total.argmin()), []
    for origin, level in reversed(taken):
        levels.append(int(level[at]))
        at = int(origin[at])
    return tuple(reversed(levels))


def _padded(
    costs: Sequence[np.ndarray], uses: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return costs [things, levels] and uses [limits, things, levels], infinite where none is."""
    shape = len(costs), max(len(cost) for cost in costs)
    padded, wide = np.full(shape, np.inf), np.full((len(uses[0]), *shape), np.inf)
    for number, (cost, use) in enumerate(zip(costs, uses, strict=True)):
        padded[number, : len(cost)] = cost
        wide[:, number, : len(cost)] = use
    padded[~np.isfinite(wide).all(axis=0)] = np.inf
    return padded, wide


def _priced(
    costs: np.ndarray, uses: np.ndarray, most: np.ndarray, prices: np.ndarray
) -> np.ndarray | None:
    """Return the levels [things] at the lowest price of each further limit that keeps it.

    Args:
        prices: Of the limits before it, [some]; with one of each the levels are known.
    """
    if len(prices) == len(most):
        sums = costs.copy()
        for price, use in zip(prices, uses, strict=True):
            sums += price * np.where(np.isfinite(use), use, 0)
        return np.asarray(sums.argmin(axis=1))
    limit = len(prices)
    rows = np.arange(len(costs))
    finite = costs[np.isfinite(costs)]
    scale = max(float(np.abs(finite).max()), 1e-30) / max(float(most[limit]), 1e-30)
    low, high, found = -1.0, 1.0, None
    for step in range(_STEPS):
        # From no price, in steps of equal ratio, to one that nothing outweighs.
        middle = low if not step else (low + high) / 2
        price = 0.0 if middle == -1 else scale * 10 ** (9 * middle)
        levels = _priced(costs, uses, most, np.append(prices, price))
        if levels is not None and uses[limit][rows, levels].sum() <= most[limit]:
            found, high = levels, middle
            if not step:
                break
        else:
            low = middle
    return found


def _improved(
    costs: np.ndarray, uses: np.ndarray, most: np.ndarray, levels: np.ndarray
) -> tuple[int, ...]:
    """Spend what is left of the limits on single changes, the one that gains most first."""
    rows = np.arange(len(costs))
    while True:
        left = most - uses[:, rows, levels].sum(axis=1)
        more = uses - uses[:, rows, levels][:, :, None]
        gains = costs[rows, levels][:, None] - costs
        gains[~(more <= left[:, None, None]).all(axis=0)] = 0
        thing, level = np.unravel_index(int(gains.argmax()), gains.shape)
        if gains[thing, level] <= 0:
            return tuple(int(found) for found in levels)
        levels[thing] = level
