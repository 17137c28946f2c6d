"""Activations and the grids that they are rounded to."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

from irtools.causes import commands
from irtools.causes.facts import Facts, GridUse
from irtools.causes.finding import Cause, Finding, Gap
from irtools.causes.worse.noise import share_of_outputs
from irtools.words import counted

__all__ = ["ExceededRanges", "OutlierChannels"]

_LEAST = 0.05
_UNEVEN = 10.0


class ExceededRanges(Cause):
    """Evaluation data leaves the ranges that calibration data gave."""

    name: ClassVar[str] = "exceeded-ranges"
    gap: ClassVar[Gap] = Gap.WORSE

    def find(self, facts: Facts) -> Iterator[Finding]:
        """Yield one finding for all tensors that are clipped."""
        shares = {use: share_of_outputs(facts, use.clip_noise) for use in facts.grids}
        found = sorted((u for u in facts.grids if shares[u] > 0.01), key=lambda u: -shares[u])
        if not found or sum(shares.values()) < _LEAST:
            return
        worst = found[0]
        yield self.finding(
            f"the data leaves the ranges of {counted(len(found), 'quantized tensor')}: what was "
            "calibrated on is not like it",
            min(1.0, sum(shares.values())),
            *(_clipped(use) for use in found[:3]),
            command=commands.optimize(
                facts, "cleanup,fuse,int8", "--calibrate", facts.data or "DATA"
            ),
            subjects=(worst.module or worst.tensor, worst.tensor),
        )


class OutlierChannels(Cause):
    """A few channels are so large that one grid leaves the others no steps."""

    name: ClassVar[str] = "outlier-channel"
    gap: ClassVar[Gap] = Gap.WORSE

    def find(self, facts: Facts) -> Iterator[Finding]:
        """Yield one finding for all tensors with such channels."""
        uses = [use for use in facts.grids if use.channel_peak >= _UNEVEN]
        costs = {use: share_of_outputs(facts, use.channel_noise) for use in uses}
        found = sorted((u for u in uses if costs[u] > 0.01), key=lambda u: -costs[u])
        if not found or sum(costs.values()) < _LEAST:
            return
        worst = found[0]
        others = f" ({counted(len(found), 'such tensor')})" if len(found) > 1 else ""
        yield self.finding(
            f"channel {worst.channel} of {worst.module or worst.tensor} is "
            f"{worst.channel_peak:.0f} times as large as the median channel: one grid leaves the "
            f"others few steps{others}",
            min(1.0, sum(costs.values())),
            *(_uneven(use, costs[use]) for use in found[:3]),
            command=commands.optimize(
                facts, "cleanup,fuse,smooth,int8", "--calibrate", facts.data or "DATA"
            ),
            subjects=(worst.module or worst.tensor, worst.tensor),
        )


def _uneven(use: GridUse, share: float) -> str:
    return (
        f"{use.tensor}: range [{use.low:.3g}, {use.high:.3g}], channel {use.channel} is "
        f"{use.channel_peak:.0f}x the median; rounding leaves {_db(use.round_noise):.1f} dB "
        f"({100 * share:.0f} %)"
    )


def _db(noise: float) -> float:
    return -10 * math.log10(max(noise, 1e-15))


def _clipped(use: GridUse) -> str:
    calibrated = ""
    if use.calibrated is not None:
        low, high = use.calibrated
        calibrated = f", calibration data [{low:.3g}, {high:.3g}]"
    return (
        f"{use.module or use.tensor}: grid [{use.low:.3g}, {use.high:.3g}]{calibrated}, data "
        f"[{use.data_low:.3g}, {use.data_high:.3g}]; {100 * use.clipped:.2g} % of the values "
        "are clipped"
    )
