"""Ranges of activations: what is asked of the statistics service, and what comes of the answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from irtools.passes.quantization.ranges.arithmetic import QParams, qparams_from_range
from irtools.passes.quantization.ranges.spec import QuantSpec
from irtools.statistics import (
    ChannelMean,
    ChannelRange,
    ChannelSquare,
    Count,
    Grid,
    HistogramResult,
    MinMaxResult,
    RangeEstimator,
    Spread,
    StatisticsService,
    Want,
    estimated_range,
)

__all__ = ["ActivationFacts", "Calibrator", "Facts", "calibrate"]

# These produce values in [0, 1] whatever their input; the ends are exact.
_UNIT_RANGE = frozenset({"Softmax", "Sigmoid", "HardSigmoid"})

_SMALLEST_RANGE = 1e-12
"""A tensor that never leaves +-1e-12 has shown no range: it was constant, or all zero."""


@dataclass(frozen=True, eq=False)
class ActivationFacts:
    """What calibration says of one activation.

    Attributes:
        qparams: Scale and zero point, or None where it has no usable range.
        reason: Why there is none.
        mean: E[x] per channel, float64 [C], or None.
        square: E[x^2] per channel, float64 [C], or None.
        peaks: max |x| per channel, float32 [C], or None.
        spread: The values that `qparams` come from; None where a range is fixed or useless.
    """

    qparams: QParams | None
    reason: str = ""
    mean: np.ndarray | None = None
    square: np.ndarray | None = None
    peaks: np.ndarray | None = None
    spread: Spread | None = None


Facts: TypeAlias = Mapping[ir.Value, ActivationFacts]


@dataclass(frozen=True)
class Calibrator:
    """How ranges are found.

    Attributes:
        estimator: Makes a range of what was seen.
        spec: The form of the activations.
        moments: Also ask for means and mean squares per channel.
        peaks: Also ask for the largest magnitudes per channel, and of how many values: what
            outliers and scales (`irtools.scaling`) are found by.
    """

    estimator: RangeEstimator
    spec: QuantSpec
    moments: bool = True
    peaks: bool = False

    def wants(self, value: ir.Value, channel_axis: int | None) -> tuple[Want, ...]:
        """Return what must be collected of one activation."""
        assert value.name is not None
        wants = [Want(value.name, self.estimator.collects)]
        if channel_axis is not None:
            if self.moments:
                wants.append(Want(value.name, ChannelMean(channel_axis)))
                wants.append(Want(value.name, ChannelSquare(channel_axis)))
            if self.peaks:
                wants.append(Want(value.name, ChannelRange(channel_axis)))
                wants.append(Want(value.name, Count(channel_axis)))
        return tuple(wants)

    def read(
        self, value: ir.Value, channel_axis: int | None, answers: Mapping[Want, object]
    ) -> ActivationFacts:
        """Turn the answers into scale, zero point and moments."""
        wants = self.wants(value, channel_axis)
        spread = answers[wants[0]]
        assert isinstance(spread, MinMaxResult | HistogramResult)
        by_kind = {type(want.reduction): np.asarray(answers[want]) for want in wants[1:]}
        ends = by_kind.get(ChannelRange)
        facts = ActivationFacts(
            None,
            mean=by_kind.get(ChannelMean),
            square=by_kind.get(ChannelSquare),
            peaks=None if ends is None else np.abs(ends).max(axis=0),
        )
        if isinstance(spread, MinMaxResult) and spread.num_nonfinite:
            return replace(facts, reason="NaN or infinite values")
        producer = value.producer()
        if producer is not None and producer.op_type in _UNIT_RANGE:
            return replace(facts, qparams=qparams_from_range(0.0, 1.0, self.spec))
        low, high = self._range(spread, value.name or "")
        if not high - low > _SMALLEST_RANGE:
            return replace(facts, reason="it never left zero")
        qparams = qparams_from_range(low, high, self.spec)
        return replace(facts, qparams=qparams, spread=spread)

    def within(self, value: ir.Value, facts: ActivationFacts, top: float) -> ActivationFacts:
        """Return the facts of a tensor whose values beyond -top and top do not count."""
        assert facts.spread is not None
        spread = _cut(facts.spread, top)
        low, high = self._range(spread, value.name or "")
        return replace(facts, qparams=qparams_from_range(low, high, self.spec), spread=spread)

    def _range(self, spread: Spread, value: str) -> tuple[float, float]:
        qmin, qmax = self.spec.limits
        return estimated_range(self.estimator, spread, Grid(qmin, qmax, self.spec.symmetric), value)


def _cut(spread: Spread, top: float) -> Spread:
    low, high = max(spread.low, -top), min(spread.high, top)
    if isinstance(spread, MinMaxResult):
        return replace(spread, low=low, high=high)
    kept = np.abs(spread.centers) <= top
    widths = None if spread.widths is None else spread.widths[kept]
    return replace(
        spread,
        centers=spread.centers[kept],
        counts=spread.counts[kept],
        widths=widths,
        low=low,
        high=high,
    )


def calibrate(
    activations: Mapping[ir.Value, int | None],
    calibrator: Calibrator,
    statistics: StatisticsService,
) -> Facts:
    """Collect what is needed of every activation, in as few sweeps as memory allows.

    Args:
        activations: Values with their channel axes; None where moments are not wanted.
        calibrator: How ranges are found.
        statistics: The service over the calibration data.
    """
    wants = [want for value, axis in activations.items() for want in calibrator.wants(value, axis)]
    answers = statistics.collect(wants)
    return {value: calibrator.read(value, axis, answers) for value, axis in activations.items()}
