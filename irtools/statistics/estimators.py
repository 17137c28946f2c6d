"""Calibrators: how the range of an activation follows from what was seen of it.

Those of irtools are in the table at the end; other packages add theirs through entry points of the
group `irtools.calibrators`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from irtools.errors import UsageError
from irtools.plugins import registry
from irtools.statistics.base import Histogram, HistogramResult, MinMax, MinMaxResult, MovingRange
from irtools.statistics.ranges import Grid, Range, entropy_range, mse_range, percentile_range

__all__ = [
    "CALIBRATOR_GROUP",
    "RangeEstimator",
    "Spread",
    "calibrators",
    "estimated_range",
]

CALIBRATOR_GROUP = "irtools.calibrators"
"""Entry points of calibrators of other packages."""

Spread: TypeAlias = MinMaxResult | HistogramResult
"""What was seen of an activation, without padding and without NaN and infinities."""


@dataclass(frozen=True)
class RangeEstimator(ABC):
    """How the range of an activation follows from what was seen of it.

    The first line of the docstring is the help of the option.
    """

    collects: ClassVar[MinMax | MovingRange | Histogram] = Histogram()
    """What is collected of every activation: the answer to it is what `estimate` is given."""

    @abstractmethod
    def estimate(self, seen: Spread, grid: Grid) -> Range:
        """Return the smallest and the largest value that the integers are to stand for.

        What lies beyond is clipped. 0 is always covered: ends are moved to it where they are not on
        either side of it.

        Args:
            seen: A `HistogramResult` where a histogram is collected, else a `MinMaxResult`.
            grid: The integers.
        """


@dataclass(frozen=True)
class WholeRange(RangeEstimator):
    """all that was seen."""

    collects: ClassVar[MinMax] = MinMax()

    def estimate(self, seen: Spread, grid: Grid) -> Range:
        return seen.low, seen.high


@dataclass(frozen=True)
class MovingAverage(RangeEstimator):
    """ends that follow those of each sample by 1 %, in the order in which samples run."""

    collects: ClassVar[MovingRange] = MovingRange()

    def estimate(self, seen: Spread, grid: Grid) -> Range:
        return seen.low, seen.high


@dataclass(frozen=True)
class LeastError(RangeEstimator):
    """least squared error of rounding and clipping together."""

    def estimate(self, seen: Spread, grid: Grid) -> Range:
        return mse_range(_histogram(seen), grid)


@dataclass(frozen=True)
class Percentile(RangeEstimator):
    """99.99 % of the values, as many left out on either side."""

    def estimate(self, seen: Spread, grid: Grid) -> Range:
        return percentile_range(_histogram(seen), grid)


@dataclass(frozen=True)
class Entropy(RangeEstimator):
    """least KL divergence of the quantized values from those that were seen."""

    def estimate(self, seen: Spread, grid: Grid) -> Range:
        return entropy_range(_histogram(seen), grid)


_OWN: Mapping[str, type[RangeEstimator]] = {
    "minmax": WholeRange,
    "mse": LeastError,
    "percentile": Percentile,
    "entropy": Entropy,
    "moving-average": MovingAverage,
}


def calibrators() -> Mapping[str, type[RangeEstimator]]:
    """Return all calibrators by name.

    Raises:
        UsageError: A plug-in is something else, or has a name of ours.
    """
    found = dict(_OWN)
    for name, point in registry.plugins(CALIBRATOR_GROUP).items():
        kind = registry.load(CALIBRATOR_GROUP, name)
        if name in _OWN:
            raise UsageError(f"{point.value} claims the name of our calibrator {name!r}")
        if not (isinstance(kind, type) and issubclass(kind, RangeEstimator)):
            raise UsageError(f"the calibrator {name!r} is {kind!r}, expected a RangeEstimator")
        found[name] = kind
    return found


def estimated_range(estimator: RangeEstimator, seen: Spread, grid: Grid, value: str) -> Range:
    """Return the range of a value; 0 is within it.

    Raises:
        UsageError: The estimator returned no range.
    """
    low, high = map(float, estimator.estimate(seen, grid))
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise UsageError(
            f"the calibrator {type(estimator).__name__} gave the range {low} to {high} for "
            f"{value!r}, expected two finite numbers, the smaller first"
        )
    return min(low, 0.0), max(high, 0.0)


def _histogram(seen: Spread) -> HistogramResult:
    assert isinstance(seen, HistogramResult)
    return seen
