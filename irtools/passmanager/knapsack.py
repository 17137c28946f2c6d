"""Choosing a level for each of many things: a knapsack.

Minimise the sum of costs under a wanted sum of gains, by dynamic programming over rounded gains
(SPDY, Frantar & Alistarh 2022; ZipLM, Kurtic et al. 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Choice", "choose_evenly", "choose_levels"]

_BUCKETS = 2000


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
