"""How much of each group goes: nothing of worth, a share of the parameters, or a speed-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from irtools.analysis.channels import ChannelGroup, removed_parameters
from irtools.errors import UnsupportedError
from irtools.model import Model
from irtools.passes.pruning.candidates import Candidates
from irtools.passes.pruning.cut import cut_copy
from irtools.passes.pruning.latency import bench_sizes, measure_table
from irtools.passmanager import Decision, PassContext

__all__ = ["Selected", "select_free", "select_ratio", "select_speedup"]

_TOLERANCE = 0.05
_MAX_ROUNDS = 4
_BISECTIONS = 10
_POINTS = "what cut models gained"
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
    cuts = _Cuts.of(model, ctx)
    table = measure_table(model, candidates.groups, bench_sizes(cuts.shape), ctx)
    choices = candidates.choices(table.gain)
    most = sum(float(c.gains.max()) for c in choices)
    wanted = min(cuts.gain_for(speedup), most)
    best: tuple[float, tuple[int, ...]] | None = None
    too_little, enough = 0.0, most
    for _ in range(_MAX_ROUNDS):
        levels = candidates.choose(choices, min(wanted, most))
        assert levels is not None
        measured = cuts.speedup(candidates.kept(levels), wanted)
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
        wanted = _corrected(wanted, cuts.dense_ms, speedup, measured, too_little, enough)
    if best is None:
        reached = cuts.speedup(candidates.kept([-1] * len(choices)), most)
        raise UnsupportedError(
            f"speedup={speedup:g} is out of reach: with every prunable unit removed the model is "
            f"{reached:.2f} times as fast; ask for less"
        )
    note = f"measured speed-up {best[0]:.2f}"
    return Selected(candidates.decisions(choices, best[1]), "ms", (note,))


@dataclass(frozen=True)
class _Cuts:
    """A model and how fast it was with some of its units removed, in this trial and earlier ones.

    Attributes:
        shape: What it is timed at.
        dense_ms: Milliseconds of the whole model.
        points: Milliseconds that were wanted by the table, and what the whole model gained.
    """

    model: ir.Model
    ctx: PassContext
    key: str
    shape: str
    dense_ms: float
    points: list[tuple[float, float]]

    @classmethod
    def of(cls, model: ir.Model, ctx: PassContext) -> _Cuts:
        key = Model(model).fingerprint()

        def measure() -> dict[str, Any]:
            found = ctx.measure_latency({"dense": model}, rough=True)["dense"]
            return {"shape": found.shape, "ms": found.median_ms}

        dense = ctx.tables.get("time of a model", measure, model=key)
        known = ctx.tables.find(_POINTS, model=key)
        points = [] if known is None else [(wanted, gained) for wanted, gained in known["points"]]
        return cls(model, ctx, key, dense["shape"], dense["ms"], points)

    def gain_for(self, speedup: float) -> float:
        """Return what the table must promise, by how far off it was where most alike was gained."""
        least, aimed, most = (
            self.dense_ms * (1 - 1 / (speedup * (1 + share)))
            for share in (0.0, _TOLERANCE / 2, _TOLERANCE)
        )
        known = [(asked, gained) for asked, gained in self.points if asked > 0 and gained > 0]
        if not known:
            return least
        asked, gained = min(known, key=lambda point: abs(point[1] - aimed))
        return asked if least <= gained <= most else aimed * asked / gained

    def speedup(self, kept: Mapping[str, Sequence[int]], wanted: float) -> float:
        """Return the latency ratio of the model to what is left of it, measured once for each."""

        def measure() -> dict[str, float]:
            models = {"dense": self.model, "pruned": cut_copy(self.model, kept)}
            found = self.ctx.measure_latency(models, rough=True)
            dense, pruned = (found[name].median_ms for name in models)
            self.points.append((wanted, self.dense_ms * (1 - pruned / dense)))
            self.ctx.tables.put(_POINTS, {"points": self.points}, model=self.key)
            return {"ratio": dense / max(pruned, 1e-9)}

        units = sorted((name, list(left)) for name, left in kept.items())
        ratio: float = self.ctx.tables.get(
            "speed of a cut model", measure, model=self.key, kept=units
        )["ratio"]
        return ratio


def _corrected(
    wanted: float, dense: float, speedup: float, measured: float, low: float, high: float
) -> float:
    """Scale the wanted gain by how far the prediction was off, kept between what is known."""
    reached = dense * (1 - 1 / max(measured, 1.001))
    scaled = wanted * dense * (1 - 1 / (speedup * (1 + _TOLERANCE / 2))) / max(reached, 1e-9)
    return scaled if low < scaled < high else (low + high) / 2 if low > 0 else min(scaled, high)
