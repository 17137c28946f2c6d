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
_UNEVEN = 12.0


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
        """Yield the tensors where it costs most."""
        uses = [use for use in facts.grids if use.channel_peak >= _UNEVEN]
        costs = {use: share_of_outputs(facts, use.channel_noise) for use in uses}
        for use in sorted(uses, key=lambda one: -costs[one])[:2]:
            if costs[use] < _LEAST:
                return
            step = (use.high - use.low) / 255
            yield self.finding(
                f"channel {use.channel} of {use.module or use.tensor} is {use.channel_peak:.0f} "
                "times as large as the median channel: one grid leaves the others few steps",
                costs[use],
                f"{use.tensor}: range [{use.low:.3g}, {use.high:.3g}], a step of {step:.2g}",
                f"rounding leaves {_db(use.round_noise):.1f} dB in the next product",
                command=commands.optimize(
                    facts, "cleanup,fuse,smooth,int8", "--calibrate", facts.data or "DATA"
                ),
                subjects=(use.module or use.tensor, use.tensor),
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
