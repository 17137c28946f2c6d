"""What was measured of one model."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from irtools.goals import Interval
from irtools.instruments.scores import MetricFigure
from irtools.measure.levels import Level
from irtools.metrics import Fidelity, Resampled

__all__ = ["Measured", "ModelScore", "figures_of", "interval_of"]


@dataclass(frozen=True)
class ModelScore:
    """Fidelity and task metric of one model.

    Attributes:
        fidelity: Closeness to the original run exactly (float32, no optimizations).
        metric: The main task metric; None without labels.
        others: Further metrics.
        notes: What a reader must know of how it was measured.
    """

    fidelity: Fidelity
    metric: MetricFigure | None
    others: tuple[MetricFigure, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class Measured:
    """What was measured of a model so far.

    Attributes:
        rows: What metrics keep of each sample, by part: the inner ones, then the rest.
        figures: Metrics that need all outputs at once, by name.
        level: How far the runtime's own optimizations go.
    """

    fidelity: Fidelity | None = None
    rows: list[tuple[np.ndarray, ...]] = field(default_factory=list)
    figures: dict[str, Resampled] = field(default_factory=dict)
    level: Level = "all"
    notes: list[str] = field(default_factory=list)


def figures_of(score: ModelScore) -> dict[str, MetricFigure]:
    """Return the metrics of a model by name, the main one first."""
    found = (*(() if score.metric is None else (score.metric,)), *score.others)
    return {figure.name: figure for figure in found}


def interval_of(figure: MetricFigure) -> Interval:
    """Return a metric with its interval, as goals take it."""
    return Interval(figure.value, figure.low, figure.high)
