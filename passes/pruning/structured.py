"""Planning structured pruning: levels of every group, chosen together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.analysis.channels import ChannelGroup, ChannelGroups, removed_parameters
from irtools.errors import UnsupportedError
from irtools.passes.pruning.curves import Importance, removal_curve
from irtools.passes.pruning.evidence import Evidence
from irtools.passes.pruning.latency import bench_sizes, measure_table, pruned_copy
from irtools.passes.pruning.obs import RemovalPath
from irtools.passes.pruning.refit import cut_and_refit
from irtools.passes.pruning.select import Choice, choose, choose_evenly
from irtools.passes.pruning.sensitivity import OutputProbe, levels_of
from irtools.passmanager import Decision, PassContext

__all__ = [
    "Candidates",
    "SelectionSettings",
    "make_candidates",
    "select_free",
    "select_ratio",
    "select_speedup",
]

PROBE_SAMPLES = 64
_MAX_LEVELS = 64
_TOLERANCE = 0.05
_MAX_ROUNDS = 4
_BISECTIONS = 10
_FREE = 1e-9
"""Share of a group's squared weights that goes without a trace."""


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
    """Every group with its order of removal, its levels and their cost."""

    groups: tuple[ChannelGroup, ...]
    paths: tuple[RemovalPath, ...]
    levels: tuple[tuple[int, ...], ...]
    costs: tuple[np.ndarray, ...]
    selection: SelectionSettings

    def choices(self, gain: Callable[[ChannelGroup, Sequence[int]], np.ndarray]) -> list[Choice]:
        """Attach gains to the levels."""
        return [
            Choice(levels, costs, gain(group, levels))
            for group, levels, costs in zip(self.groups, self.levels, self.costs, strict=True)
        ]

    def choose(self, choices: Sequence[Choice], wanted: float) -> tuple[int, ...] | None:
        """Choose levels that reach a gain."""
        return (choose if self.selection.is_global else choose_evenly)(choices, wanted)

    def removed(self, levels: Sequence[int]) -> dict[str, list[int]]:
        """Return the units that go, by group name; groups that stay whole are left out."""
        return {
            group.name: sorted(path.order[: counts[level]].tolist())
            for group, path, counts, level in zip(
                self.groups, self.paths, self.levels, levels, strict=True
            )
            if counts[level]
        }

    def decisions(self, choices: Sequence[Choice], levels: Sequence[int]) -> tuple[Decision, ...]:
        """Write the levels as decisions, the least cost for its gain first."""
        made = []
        for group, path, choice, level in zip(
            self.groups, self.paths, choices, levels, strict=True
        ):
            count = choice.removed[level]
            if not count:
                continue
            kept = sorted(path.order[count:].tolist())
            made.append(
                Decision(
                    group.name,
                    f"keep {len(kept)} of {group.units} {group.kind}",
                    cost=float(choice.costs[level]),
                    gain=float(choice.gains[level]),
                    data={"kept": kept, "units": group.units, "kind": group.kind},
                )
            )
        return tuple(sorted(made, key=lambda d: (d.cost / max(d.gain, 1e-12), d.subject)))


def make_candidates(
    model: ir.Model,
    groups: Sequence[ChannelGroup],
    importance: Importance,
    evidence: Evidence,
    selection: SelectionSettings,
    ctx: PassContext,
) -> Candidates:
    """Rank the units of every group and weigh the groups against each other."""
    paths, levels = [], []
    for number, group in enumerate(groups):
        ctx.progress.step("ranking units", number, len(groups))
        paths.append(removal_curve(group, importance, evidence))
        round_to = selection.round_to if group.units >= 2 * selection.round_to else 1
        found = levels_of(group.units, round_to, selection.min_width)
        levels.append(_thinned(found))
    factors = np.ones(len(groups))
    if ctx.calibration is not None and selection.is_global:
        factors = _sensitivities(model, groups, paths, evidence, ctx)
    costs = tuple(
        factor * path.errors[list(counts)]
        for factor, path, counts in zip(factors, paths, levels, strict=True)
    )
    return Candidates(tuple(groups), tuple(paths), tuple(levels), costs, selection)


def _thinned(levels: Sequence[int]) -> tuple[int, ...]:
    if len(levels) <= _MAX_LEVELS:
        return tuple(levels)
    places = np.unique(np.linspace(0, len(levels) - 1, _MAX_LEVELS).round().astype(int))
    return tuple(levels[i] for i in places)


def _sensitivities(
    model: ir.Model,
    groups: Sequence[ChannelGroup],
    paths: Sequence[RemovalPath],
    evidence: Evidence,
    ctx: PassContext,
) -> np.ndarray:
    """Return output divergence per relative layer error, from half of each group removed."""
    assert ctx.calibration is not None
    probe = OutputProbe.of(model, ctx.calibration, ctx, PROBE_SAMPLES)
    factors = []
    for number, (group, path) in enumerate(zip(groups, paths, strict=True)):
        ctx.progress.step("weighing layers", number, len(groups))
        half = group.units // 2
        kept = tuple(sorted(path.order[half:].tolist()))
        copy = model.clone()
        cut_and_refit(copy, {group.name: kept}, _moved(evidence, groups, copy))
        error = float(path.errors[half])
        factors.append(probe.distance(copy) / max(error, 1e-9))
    found = np.asarray(factors)
    positive = found[found > 0]
    # A group without any measured effect is cheap, not free.
    floor = float(positive.min()) if positive.size else 1.0
    factors_above: np.ndarray = np.maximum(found, floor)
    return factors_above


def _moved(evidence: Evidence, groups: Sequence[ChannelGroup], copy: ir.Model) -> Evidence:
    """Return the evidence keyed by the nodes of a clone, sharing the solved refits."""
    twins = ChannelGroups.of(copy)
    problems = {}
    for group in groups:
        twin = twins.find(group.name)
        assert twin is not None, "a clone has the groups of its original"
        for ours, theirs in zip(group.sinks, twin.sinks, strict=True):
            if ours.node in evidence.problems:
                problems[theirs.node] = evidence.problems[ours.node]
    return Evidence(problems)


def _parameters(group: ChannelGroup, removed: Sequence[int]) -> np.ndarray:
    return np.asarray(removed, dtype=np.float64) * group.parameters_per_unit


def select_free(candidates: Candidates) -> tuple[tuple[Decision, ...], str]:
    """Remove only units whose weights are all but zero; return decisions and gain unit."""
    choices = candidates.choices(_parameters)
    levels = [int(np.flatnonzero(choice.costs <= _FREE)[-1]) for choice in choices]
    return candidates.decisions(choices, levels), "parameters"


def select_ratio(candidates: Candidates, ratio: float) -> tuple[tuple[Decision, ...], str]:
    """Remove a share of the parameters of all prunable groups; return decisions and gain unit.

    A convolution between two groups loses rows to one and columns to the other, so gains of
    groups do not add up to parameters. Where that is so, the wanted gain is found by bisection.
    """
    choices = candidates.choices(_parameters)
    most = sum(float(c.gains[-1]) for c in choices)
    whole = sum(g.units * g.parameters_per_unit for g in candidates.groups)
    total = removed_parameters(candidates.groups, None)
    wanted = min(ratio * whole, most)
    if total == whole:
        levels = candidates.choose(choices, wanted)
        assert levels is not None
        return candidates.decisions(choices, levels), "parameters"
    low, high = 0.0, most
    levels = candidates.choose(choices, most)
    assert levels is not None
    for _ in range(_BISECTIONS):
        found = candidates.choose(choices, wanted)
        assert found is not None
        if removed_parameters(candidates.groups, candidates.removed(found)) < ratio * total:
            low = wanted
        else:
            high, levels = wanted, found
        wanted = (low + high) / 2
    return candidates.decisions(choices, levels), "parameters"


def select_speedup(
    candidates: Candidates, speedup: float, model: ir.Model, ctx: PassContext
) -> tuple[tuple[Decision, ...], str]:
    """Reach a latency ratio on the target, and check it on the whole pruned model.

    The table predicts; then the model is cut, timed against the original, and the wanted gain
    corrected by what was found, until the ratio is reached with little to spare.

    Returns:
        Decisions, and a note of what was measured.

    Raises:
        UnsupportedError: Everything that may be removed does not reach it.
    """
    dense = ctx.measure_latency({"dense": model})["dense"]
    table = measure_table(model, candidates.groups, bench_sizes(dense.shape), ctx)
    choices = candidates.choices(table.gain)
    most = sum(float(c.gains.max()) for c in choices)
    wanted = dense.median_ms * (1 - 1 / speedup)
    best: tuple[float, tuple[int, ...]] | None = None
    too_little, enough = 0.0, most
    for _ in range(_MAX_ROUNDS):
        levels = candidates.choose(choices, min(wanted, most))
        assert levels is not None
        measured = _measured_speedup(model, candidates.removed(levels), ctx)
        if measured >= speedup:
            enough = wanted
            if best is None or measured < best[0]:
                best = (measured, levels)
            if measured <= speedup * (1 + _TOLERANCE):
                break
        else:
            if wanted >= most * (1 - 1e-9):
                break
            too_little = max(too_little, wanted)
        wanted = _corrected(wanted, dense.median_ms, speedup, measured, too_little, enough)
    if best is None:
        reached = _measured_speedup(model, candidates.removed([-1] * len(choices)), ctx)
        raise UnsupportedError(
            f"speedup={speedup:g} is out of reach: with every prunable unit removed the model is "
            f"{reached:.2f} times as fast; ask for less"
        )
    return candidates.decisions(choices, best[1]), f"measured speed-up {best[0]:.2f}"


def _corrected(
    wanted: float, dense: float, speedup: float, measured: float, low: float, high: float
) -> float:
    """Scale the wanted gain by how far the prediction was off, kept between what is known."""
    reached = dense * (1 - 1 / max(measured, 1.001))
    scaled = wanted * dense * (1 - 1 / (speedup * (1 + _TOLERANCE / 2))) / max(reached, 1e-9)
    return scaled if low < scaled < high else (low + high) / 2 if low > 0 else min(scaled, high)


def _measured_speedup(
    model: ir.Model, removed: Mapping[str, Sequence[int]], ctx: PassContext
) -> float:
    results = ctx.measure_latency({"dense": model, "pruned": pruned_copy(model, removed)})
    return results["dense"].median_ms / max(results["pruned"].median_ms, 1e-9)
