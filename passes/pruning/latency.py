"""What the removal of units gains in time, measured on the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.passes.pruning.edit import Cut, remove_channels
from irtools.passes.pruning.groups import ChannelGroup, ChannelGroups
from irtools.passmanager import PassContext

__all__ = ["LatencyTable", "measure_table", "pruned_copy"]

_SHARES = (0.5, 0.875)
"""Shares of the units of a class that are removed for the table. Latency is close to piecewise
linear in the width, and odd widths cost nothing."""

_LEAST_SHARE = 0.02
"""Classes with fewer of the prunable parameters are not worth a measurement."""


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds gained per group, as a function of the share of its units that is removed.

    Attributes:
        dense_ms: Latency of the model as it stands.
        gains: Group name to (share, ms), piecewise linear.
    """

    dense_ms: float
    gains: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]]

    def gain(self, group: ChannelGroup, removed: Sequence[int]) -> np.ndarray:
        """Return the milliseconds gained by removing so many units: [len(removed)]."""
        if group.name not in self.gains:
            return np.zeros(len(removed))
        shares, gained = self.gains[group.name]
        return np.interp(np.asarray(removed) / group.units, shares, gained)


def pruned_copy(model: ir.Model, removed: Mapping[str, Sequence[int]]) -> ir.Model:
    """Return a copy without the named units, not refitted: right in shape, good for timing."""
    copy = model.clone()
    groups = ChannelGroups.of(copy)
    cuts = []
    for name, units in removed.items():
        group = groups.find(name)
        assert group is not None, "a clone has the groups of its original"
        gone = set(units)
        cuts.append(Cut(group, tuple(u for u in range(group.units) if u not in gone)))
    remove_channels(copy, cuts)
    return copy


def measure_table(
    model: ir.Model, groups: Sequence[ChannelGroup], ctx: PassContext
) -> LatencyTable:
    """Time the model whole, and with each class of equal groups cut at two widths."""
    classes = _classes(groups)
    contenders = {"dense": model}
    points: dict[tuple[int, float], str] = {}
    for number, members in enumerate(classes):
        for share in _SHARES:
            name = f"class{number}-{share}"
            points[number, share] = name
            contenders[name] = pruned_copy(
                model, {g.name: range(round(g.units * share)) for g in members}
            )
    results = ctx.measure_latency(contenders)
    dense = results["dense"].median_ms
    gains = {}
    for number, members in enumerate(classes):
        gained = [0.0]
        for share in _SHARES:
            saved = (dense - results[points[number, share]].median_ms) / len(members)
            # Noise must not make a narrower layer slower: gains never fall.
            gained.append(max(saved, gained[-1]))
        shares = (0.0, *_SHARES)
        for group in members:
            gains[group.name] = (shares, tuple(gained))
    return LatencyTable(dense, gains)


def _classes(groups: Sequence[ChannelGroup]) -> list[list[ChannelGroup]]:
    by_shape: dict[tuple[str, int, int], list[ChannelGroup]] = {}
    for group in groups:
        by_shape.setdefault((group.kind, group.units, group.parameters_per_unit), []).append(group)
    total = sum(g.units * g.parameters_per_unit for g in groups)
    return [
        members
        for members in by_shape.values()
        if sum(g.units * g.parameters_per_unit for g in members) >= _LEAST_SHARE * total
    ]
