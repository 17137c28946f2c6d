"""Statistics of activations, from calibration data."""

from __future__ import annotations

from irtools.statistics.base import (
    ChannelAbsMax,
    ChannelMean,
    ChannelSquare,
    CollectionFigures,
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

__all__ = [
    "ChannelAbsMax",
    "ChannelMean",
    "ChannelSquare",
    "CollectionFigures",
    "Gram",
    "GramResult",
    "Histogram",
    "HistogramResult",
    "MinMax",
    "MinMaxResult",
    "Reduction",
    "StatisticsService",
    "Want",
]
