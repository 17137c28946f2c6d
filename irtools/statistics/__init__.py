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
    Histogram,
    HistogramResult,
    MinMax,
    MinMaxResult,
    Reduction,
    StatisticsService,
    Want,
)
from irtools.statistics.observe import expose
from irtools.statistics.ranges import Grid, entropy_range, mse_range, percentile_range
from irtools.statistics.service import CollectionSettings, StreamingStatistics

__all__ = [
    "ChannelMean",
    "ChannelRange",
    "ChannelSquare",
    "CollectionFigures",
    "CollectionSettings",
    "Count",
    "Gram",
    "GramResult",
    "Grid",
    "Histogram",
    "HistogramResult",
    "MinMax",
    "MinMaxResult",
    "Reduction",
    "StatisticsService",
    "StreamingStatistics",
    "Want",
    "entropy_range",
    "expose",
    "mse_range",
    "percentile_range",
]
