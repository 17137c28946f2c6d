"""Every detector by name: ours, and those of packages that register some."""

from __future__ import annotations

from irtools.causes.finding import Cause
from irtools.causes.larger.weights import (
    FloatWeights,
    FoldedConstants,
    RepeatedWeights,
    WiderWeights,
)
from irtools.causes.slower.control import IdleExits, TooManyThreads
from irtools.causes.slower.copies import Casts, LayoutCopies, OpenSizes
from irtools.causes.slower.integers import DynamicInt8, IntegerConvolutions, NoInt8Instructions
from irtools.causes.slower.kernels import FloatFallback, LeftInFloat, LostFusion, UnfusedPairs
from irtools.causes.slower.modules import SlowModules
from irtools.causes.worse.answers import ClassOrder, LosingClasses, UnmaskedPadding
from irtools.causes.worse.grids import ExceededRanges, OutlierChannels
from irtools.causes.worse.layers import CoarseWeights, NotFinite, SpoiltLayer
from irtools.causes.worse.saturation import Saturation
from irtools.errors import UsageError
from irtools.plugins import registry

__all__ = ["GROUP", "all_causes"]

GROUP = "irtools.causes"
"""Entry points of packages that bring detectors of their own."""

_OURS: tuple[type[Cause], ...] = (
    DynamicInt8,
    NoInt8Instructions,
    IntegerConvolutions,
    FloatFallback,
    UnfusedPairs,
    LeftInFloat,
    LostFusion,
    LayoutCopies,
    Casts,
    OpenSizes,
    IdleExits,
    TooManyThreads,
    SlowModules,
    RepeatedWeights,
    FoldedConstants,
    FloatWeights,
    WiderWeights,
    NotFinite,
    UnmaskedPadding,
    ClassOrder,
    ExceededRanges,
    OutlierChannels,
    CoarseWeights,
    Saturation,
    SpoiltLayer,
    LosingClasses,
)


def all_causes() -> tuple[Cause, ...]:
    """Return a detector of each kind.

    Raises:
        UsageError: A package registers something else.
    """
    found: list[Cause] = [kind() for kind in _OURS]
    for name in registry.names(GROUP):
        kind = registry.load(GROUP, name)
        if not (isinstance(kind, type) and issubclass(kind, Cause)):
            raise UsageError(f"the plug-in {name!r} of {GROUP} is {kind!r}, expected a Cause")
        found.append(kind())
    return tuple(found)
