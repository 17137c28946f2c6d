"""Scales per channel that move through a model exactly: how strong they are, and writing them.

Where they may be is an analysis (`irtools.analysis.scales`). Statistics are those of
`irtools.statistics` per channel, collected once for all sites (`evidence`). Strength is chosen for
each site by itself, in closed form (`strength`). A decision names its site and can be stored
(`planning`). Constants and a Mul here and there are written in one place (`fold`). Passes that
round products use this room; it knows nothing of integers but the number of steps.
"""

from __future__ import annotations

from irtools.scaling.planning import (
    COUNTERS,
    MOVED,
    ScaledSite,
    Scales,
    ScaleSettings,
    apply_scales,
    plan_scales,
)
from irtools.scaling.strength import ROUNDINGS, Rounding

__all__ = [
    "COUNTERS",
    "MOVED",
    "ROUNDINGS",
    "Rounding",
    "ScaleSettings",
    "ScaledSite",
    "Scales",
    "apply_scales",
    "plan_scales",
]
