"""Input channels that are much larger than all others, multiplied in float32.

    X W  =  q(X) q(W with the rows o set to 0)  +  X[.., o] W[o, :]

A few channels of a transformer may be ten times as large as the rest, and one scale for the whole
tensor then leaves the rest two or three bits. They are the same channels for every input, so they
are found on calibration data and looked up by position. The range of X leaves them out: what is
cut off of them meets rows of zeros. The decomposition is that of LLM.int8() (Dettmers et al.
2022), with static ranges and fixed channels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.passes.quantization.ranges.calibration import ActivationFacts, Calibrator, Facts
from irtools.passes.quantization.sites.results import result_of
from irtools.passes.quantization.sites.uses import Weight

__all__ = [
    "Channels",
    "OutlierLimits",
    "channels_of",
    "find_outliers",
    "outlying",
    "without_channels",
    "without_outliers",
]

Channels = tuple[int, ...]

_RATIO = 2.0
"""How much the range must shrink: by a bit, else noise has another reason."""

_NEAR = 1.25
"""Channels up to so much above the rest belong to it."""

_SHARE = 64
"""At most one channel in so many leaves the integer product."""


@dataclass(frozen=True)
class OutlierLimits:
    """Limits on float32 outlier channels.

    Attributes:
        channels: Most of one weight; never more than one in 64.
        floor_db: Signal to noise of the others, in decibels, from which on all stay together.
    """

    channels: int
    floor_db: float


def outlying(
    peaks: np.ndarray, square: np.ndarray, scale: float, limits: OutlierLimits
) -> Channels:
    """Return the channels that leave too few bits to the others, ascending.

    Args:
        peaks: max |x| per channel, [C].
        square: E[x^2] per channel, [C].
        scale: Step of the range that covers them all; rounding to it has the noise scale^2 / 12.
        limits: Where channels leave.
    """
    limit = min(limits.channels, len(peaks) // _SHARE)
    if limit < 1:
        return ()
    order = np.argsort(-peaks, kind="stable")
    rest = float(peaks[order[limit]])
    signal = float(square[order[limit:]].mean())
    enough = 10 ** (limits.floor_db / 10) * scale**2 / 12
    if not 0 < _RATIO * rest <= peaks[order[0]] or signal > enough:
        return ()
    count = int(np.sum(peaks[order[:limit]] > _NEAR * rest))
    return tuple(sorted(int(channel) for channel in order[:count]))


def find_outliers(
    weights: Sequence[Weight], facts: Facts, limits: OutlierLimits, clips: Collection[str]
) -> dict[ir.Value, Channels]:
    """Return which channels of which activations are multiplied in float32.

    Args:
        weights: All that become int8 with static ranges.
        facts: What calibration says of what they are multiplied with.
        limits: Where channels leave.
        clips: As `result_of` takes them.

    Returns:
        Activation to channels, only where there are some.
    """
    multiplied: set[ir.Value] = set()
    refused: set[ir.Value] = set()
    for weight in weights:
        plain = all(use.kind in ("matmul", "gemm") for use in weight.uses)
        (multiplied if plain else refused).update(use.activation for use in weight.uses)
        # Integers continue after a Conv: what is cut off there would be missing elsewhere.
        refused.update(result_of(use, clips) for use in weight.uses if use.kind == "conv")
    found = {value: _outlying(facts[value], limits) for value in multiplied - refused}
    return _within_limit({value: o for value, o in found.items() if o}, weights, limits.channels)


def _outlying(facts: ActivationFacts, limits: OutlierLimits) -> Channels:
    if facts.spread is None or facts.peaks is None or facts.square is None:
        return ()
    assert facts.qparams is not None
    return outlying(facts.peaks, facts.square, float(facts.qparams.scale), limits)


def _within_limit(
    found: dict[ir.Value, Channels], weights: Sequence[Weight], limit: int
) -> dict[ir.Value, Channels]:
    """Leave out weights shared by activations whose outliers together are too many."""
    for weight in weights:
        if len(channels_of(weight, found)) > limit:
            for use in weight.uses:
                found.pop(use.activation, None)
    return found


def channels_of(weight: Weight, outliers: Mapping[ir.Value, Channels]) -> Channels:
    """Return the rows that a weight multiplies in float32: those of all its activations."""
    products = (use for use in weight.uses if use.kind != "gather")
    return tuple(sorted({c for use in products for c in outliers.get(use.activation, ())}))


def without_outliers(
    facts: Facts,
    outliers: Mapping[ir.Value, Channels],
    calibrator: Calibrator,
) -> dict[ir.Value, ActivationFacts]:
    """Return the facts with the ranges of what is left."""
    found = dict(facts)
    for value, channels in outliers.items():
        peaks = facts[value].peaks
        assert peaks is not None
        rest = float(np.delete(peaks, channels).max())
        found[value] = calibrator.within(value, facts[value], rest)
    return found


def without_channels(array: np.ndarray, axis: int, channels: Sequence[int]) -> np.ndarray:
    """Return a weight with zeros for some input channels; `axis` is its output-channel axis."""
    if not channels:
        return array
    kept = array.copy()
    kept[(slice(None), list(channels)) if axis == 0 else list(channels)] = 0
    return kept
