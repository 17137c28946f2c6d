"""Statistics of activations, from calibration data."""

from __future__ import annotations

from irtools.statistics.base import (
    ChannelMean,
    ChannelRange,
    ChannelSquare,
    CollectionFigures,
    Count,
    Gram,
    GramResult,
    HeadGram,
    Histogram,
    HistogramResult,
    MinMax,
    MinMaxResult,
    MovingRange,
    Reduction,
    StatisticsService,
    TurnedPeak,
    Want,
)
from irtools.statistics.estimators import (
    CALIBRATOR_GROUP,
    RangeEstimator,
    Spread,
    calibrators,
    estimated_range,
)
from irtools.statistics.observe import expose
from irtools.statistics.ranges import Grid, entropy_range, mse_range, percentile_range
from irtools.statistics.service import CollectionSettings, StreamingStatistics

__all__ = [
    "CALIBRATOR_GROUP",
    "ChannelMean",
    "ChannelRange",
    "ChannelSquare",
    "CollectionFigures",
    "CollectionSettings",
    "Count",
    "Gram",
    "GramResult",
    "Grid",
    "HeadGram",
    "Histogram",
    "HistogramResult",
    "MinMax",
    "MinMaxResult",
    "MovingRange",
    "RangeEstimator",
    "Reduction",
    "Spread",
    "StatisticsService",
    "StreamingStatistics",
    "TurnedPeak",
    "Want",
    "calibrators",
    "entropy_range",
    "estimated_range",
    "expose",
    "mse_range",
    "percentile_range",
]
