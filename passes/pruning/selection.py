"""How much of each group goes: nothing of worth, a share of the parameters, or a speed-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.analysis.channels import ChannelGroup, removed_parameters
from irtools.errors import UnsupportedError
from irtools.passes.pruning.candidates import Candidates
from irtools.passes.pruning.cut import cut_copy
from irtools.passes.pruning.latency import bench_sizes, measure_table
from irtools.passmanager import Decision, PassContext

__all__ = ["Selected", "select_free", "select_ratio", "select_speedup"]

_TOLERANCE = 0.05
_MAX_ROUNDS = 4
_BISECTIONS = 10
_FREE = 1e-9
"""Share of a group's squared weights that goes without a trace."""


@dataclass(frozen=True)
class Selected:
    """What goes.

    Attributes:
        decisions: The least cost for its gain first.
        gain_unit: Unit of their gains.
        notes: What was measured.
    """

    decisions: tuple[Decision, ...]
    gain_unit: str
    notes: tuple[str, ...] = ()


def select_free(candidates: Candidates) -> Selected:
    """Remove only units whose weights are all but zero."""
    choices = candidates.choices(_parameters)
    levels = [int(np.flatnonzero(choice.costs <= _FREE)[-1]) for choice in choices]
    return Selected(candidates.decisions(choices, levels), "parameters")


def select_ratio(candidates: Candidates, ratio: float) -> Selected:
    """Remove a share of the parameters of all prunable groups.

    A convolution between two groups loses rows to one and columns to the other, so gains of
    groups do not add up to parameters. Where that is so, the wanted gain is found by bisection.
    """
    groups = candidates.groups
    choices = candidates.choices(_parameters)
    most = sum(float(c.gains[-1]) for c in choices)
    whole = sum(g.units * g.parameters_per_unit for g in groups)
    total = removed_parameters(groups, None)
    wanted = min(ratio * whole, most)
    levels = candidates.choose(choices, wanted if total == whole else most)
    assert levels is not None
    low, high = 0.0, most
    for _ in range(0 if total == whole else _BISECTIONS):
        found = candidates.choose(choices, wanted)
        assert found is not None
        if removed_parameters(groups, candidates.removed(found)) < ratio * total:
            low = wanted
        else:
            high, levels = wanted, found
        wanted = (low + high) / 2
    return Selected(candidates.decisions(choices, levels), "parameters")


def _parameters(group: ChannelGroup, removed: Sequence[int]) -> np.ndarray:
    return np.asarray(removed, dtype=np.float64) * group.parameters_per_unit


def select_speedup(
    candidates: Candidates, speedup: float, model: ir.Model, ctx: PassContext
) -> Selected:
    """Reach a latency ratio on the target, and check it on the whole pruned model.

    The table predicts; then the model is cut, timed against the original, and the wanted gain
    corrected by what was found, until the ratio is reached with little to spare.

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
        measured = _measured_speedup(model, candidates.kept(levels), ctx)
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
        reached = _measured_speedup(model, candidates.kept([-1] * len(choices)), ctx)
        raise UnsupportedError(
            f"speedup={speedup:g} is out of reach: with every prunable unit removed the model is "
            f"{reached:.2f} times as fast; ask for less"
        )
    note = f"measured speed-up {best[0]:.2f}"
    return Selected(candidates.decisions(choices, best[1]), "ms", (note,))


def _corrected(
    wanted: float, dense: float, speedup: float, measured: float, low: float, high: float
) -> float:
    """Scale the wanted gain by how far the prediction was off, kept between what is known."""
    reached = dense * (1 - 1 / max(measured, 1.001))
    scaled = wanted * dense * (1 - 1 / (speedup * (1 + _TOLERANCE / 2))) / max(reached, 1e-9)
    return scaled if low < scaled < high else (low + high) / 2 if low > 0 else min(scaled, high)


def _measured_speedup(
    model: ir.Model, kept: Mapping[str, Sequence[int]], ctx: PassContext
) -> float:
    results = ctx.measure_latency({"dense": model, "pruned": cut_copy(model, kept)})
    return results["dense"].median_ms / max(results["pruned"].median_ms, 1e-9)
