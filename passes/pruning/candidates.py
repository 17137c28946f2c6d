"""What may go: the units of every group in order, at how many levels, and at which cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir

from irtools.analysis.channels import ChannelGroup
from irtools.model import Model
from irtools.passes.pruning.cut import cut_units
from irtools.passes.pruning.evidence import Evidence
from irtools.passes.pruning.obs import RemovalPath
from irtools.passes.pruning.ranking import Importance, removal_path_of
from irtools.passes.pruning.sensitivity import Trial, sensitivities
from irtools.passmanager import Choice, Decision, PassContext, choose_evenly, choose_levels

__all__ = ["Candidates", "SelectionSettings", "levels_of", "make_candidates"]

_MAX_LEVELS = 64


@dataclass(frozen=True)
class SelectionSettings:
    """What is asked of the selection.

    Attributes:
        round_to: Widths that stay are multiples of this, for groups at least twice as wide.
        min_width: Units that always stay.
        is_global: Levels are chosen over all groups together, or the same share from each.
    """

    round_to: int
    min_width: int
    is_global: bool


@dataclass(frozen=True)
class Candidates:
    """Every group with its order of removal, its levels and their cost.

    Attributes:
        groups: The groups.
        paths: Of each, its units in the order in which they go.
        levels: Of each, how many of them may go.
        costs: Of each, what every level costs.
        is_global: As in the settings.
    """

    groups: tuple[ChannelGroup, ...]
    paths: tuple[RemovalPath, ...]
    levels: tuple[tuple[int, ...], ...]
    costs: tuple[np.ndarray, ...]
    is_global: bool

    def choices(self, gain: Callable[[ChannelGroup, Sequence[int]], np.ndarray]) -> list[Choice]:
        """Attach gains to the levels."""
        return [
            Choice(costs, gain(group, levels))
            for group, levels, costs in zip(self.groups, self.levels, self.costs, strict=True)
        ]

    def choose(self, choices: Sequence[Choice], wanted: float) -> tuple[int, ...] | None:
        """Choose levels that reach a gain."""
        return (choose_levels if self.is_global else choose_evenly)(choices, wanted)

    def removed(self, levels: Sequence[int]) -> dict[str, list[int]]:
        """Return the units that go, by group name; groups that stay whole are left out."""
        return {
            group.name: sorted(path.order[: counts[level]].tolist())
            for group, path, counts, level in zip(
                self.groups, self.paths, self.levels, levels, strict=True
            )
            if counts[level]
        }

    def kept(self, levels: Sequence[int]) -> dict[str, list[int]]:
        """Return the units that stay, by group name; groups that stay whole are left out."""
        removed = self.removed(levels)
        return {
            group.name: sorted(set(range(group.units)).difference(removed[group.name]))
            for group in self.groups
            if group.name in removed
        }

    def decisions(self, choices: Sequence[Choice], levels: Sequence[int]) -> tuple[Decision, ...]:
        """Write the levels as decisions, the least cost for its gain first."""
        kept = self.kept(levels)
        made = [
            Decision(
                group.name,
                f"keep {len(kept[group.name])} of {group.units} {group.kind}",
                cost=float(choice.costs[level]),
                gain=float(choice.gains[level]),
                data={"kept": kept[group.name], "units": group.units, "kind": group.kind},
            )
            for group, choice, level in zip(self.groups, choices, levels, strict=True)
            if group.name in kept
        ]
        return tuple(sorted(made, key=lambda d: (d.cost / max(d.gain, 1e-12), d.subject)))


def make_candidates(
    model: ir.Model,
    groups: Sequence[ChannelGroup],
    importance: Importance,
    evidence: Evidence,
    settings: SelectionSettings,
    ctx: PassContext,
) -> Candidates:
    """Rank the units of every group and weigh the groups against each other.

    Args:
        model: The model.
        groups: Those that may get smaller.
        importance: How units are ranked.
        evidence: What is known of the layers that sum units up.
        settings: What is asked of the selection.
        ctx: With calibration data, groups are weighed by how much the outputs move.
    """
    data = ctx.calibration
    weighed = data is not None and settings.is_global
    known = ctx.tables.get(
        "what units cost",
        partial(_measured, model, groups, importance, evidence, ctx, weighed=weighed),
        model=Model(model).fingerprint(),
        data=None if data is None else data.with_digest().digest,
        groups=[(group.name, group.units) for group in groups],
        importance=importance,
        refitted=bool(evidence.problems),
        weighed=weighed,
    )
    paths = tuple(RemovalPath(*pair) for pair in zip(known["orders"], known["errors"], strict=True))
    levels = []
    for group in groups:
        round_to = settings.round_to if group.units >= 2 * settings.round_to else 1
        levels.append(_thinned(levels_of(group.units, round_to, settings.min_width)))
    costs = tuple(
        factor * path.errors[list(counts)]
        for factor, path, counts in zip(known["factors"], paths, levels, strict=True)
    )
    return Candidates(tuple(groups), paths, tuple(levels), costs, settings.is_global)


def _measured(
    model: ir.Model,
    groups: Sequence[ChannelGroup],
    importance: Importance,
    evidence: Evidence,
    ctx: PassContext,
    *,
    weighed: bool,
) -> dict[str, Any]:
    """Rank the units of every group and, with calibration data, measure what groups do to outputs:
    nothing of it depends on how much is to go."""
    paths = []
    for number, group in enumerate(groups):
        ctx.progress.step("ranking units", number, len(groups))
        paths.append(removal_path_of(group, importance, evidence))
    factors = np.ones(len(groups))
    if weighed:
        trials = [_half_of(*pair, evidence) for pair in zip(groups, paths, strict=True)]
        factors = sensitivities(model, trials, len(trials), ctx)
    return {
        "orders": [path.order for path in paths],
        "errors": [path.errors for path in paths],
        "factors": factors,
    }


def _half_of(group: ChannelGroup, path: RemovalPath, evidence: Evidence) -> Trial:
    half = group.units // 2
    kept = {group.name: sorted(path.order[half:].tolist())}
    return Trial(partial(cut_units, kept=kept, evidence=evidence), float(path.errors[half]))


def levels_of(units: int, round_to: int, min_width: int) -> Sequence[int]:
    """List how many units may be removed: what stays is a multiple of `round_to`."""
    least = max(min_width, 1)
    kept = {units, *(k for k in range(units, least - 1, -1) if k % round_to == 0 and k >= least)}
    return [units - k for k in sorted(kept, reverse=True)]


def _thinned(levels: Sequence[int]) -> tuple[int, ...]:
    if len(levels) <= _MAX_LEVELS:
        return tuple(levels)
    places = np.unique(np.linspace(0, len(levels) - 1, _MAX_LEVELS).round().astype(int))
    return tuple(levels[i] for i in places)
