"""Convs whose result keeps its digits: a few that are little work and lose much.

For some targets every quantized Conv outputs integers, so that its result has 256 steps for all
channels and places. Where other Convs read it, that is the point. The patches of a vision
transformer are read by the residual stream of all blocks instead, and are a hundredth of the work:
such a Conv is multiplied in float32, its weights stored in 8 bits, where the outputs gain by it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import onnx_ir as ir

from irtools.passes.quantization.forms.registry import read_decision
from irtools.passes.quantization.forms.static import Static
from irtools.passes.quantization.remedy import least_gain
from irtools.passes.quantization.sites.uses import Weight
from irtools.passes.quantization.trial_run import Trials, flops_of
from irtools.passmanager import Decision, Plan
from irtools.targets import Feeds
from irtools.words import counted

__all__ = ["keep_results"]

_SHARE = 0.02
"""Of the operations of a run that all such Convs may have together."""


def keep_results(
    plan: Plan,
    model: ir.Model,
    weights: tuple[Weight, ...],
    finer: Callable[[Decision], Decision | None],
    trials: Trials,
) -> Plan:
    """Return the plan with Convs in float32 whose rounded results cost the outputs most.

    Args:
        plan: Of static products.
        model: That it was made on.
        weights: Those that are multiplied with fixed ranges.
        finer: Gives the stored form of a decision.
        trials: Run it. Without the caller's data the plan is kept.
    """
    if trials.run is None or trials.run.drawn:
        return plan
    alone = {weight.name for weight in weights if _is_read_in_float(weight, weights)}
    found = [d for d in plan.decisions if _rounds_result(d) and d.data["weight"] in alone]
    found = _small(found, model, trials.run.feeds[0]) if found else []
    if not found:
        return plan
    kept = trials.kept_db(plan)
    gain = None if kept is None else least_gain(kept)
    if kept is None or gain is None:
        return plan
    stored = {id(d): finer(d) for d in found}
    made = [stored.get(id(d), d) for d in plan.decisions]
    changed = replace(plan, decisions=tuple(d for d in made if d is not None))
    without = trials.kept_db(changed)
    if without is None or without < kept + gain:
        return plan
    note = (
        f"{counted(len(found), 'Conv')} in float32, whose result would have 256 steps: "
        f"{without:.1f} dB with it, {kept:.1f} dB without ({trials.told})"
    )
    return replace(changed, notes=(*plan.notes, note))


def _rounds_result(decision: Decision) -> bool:
    return decision.data.get("form") == Static.name and any(
        use.result is not None for use in read_decision(decision).uses
    )


def _is_read_in_float(weight: Weight, weights: tuple[Weight, ...]) -> bool:
    """Whether no other Conv takes the result of this one as integers."""
    read = {use.activation for w in weights for use in w.uses if use.kind == "conv"}
    return all(use.kind == "conv" and use.output not in read for use in weight.uses)


def _small(found: list[Decision], model: ir.Model, feeds: Feeds) -> list[Decision]:
    """Return the smallest, as many as are together a small share of the work."""
    flops = flops_of(model, feeds)
    most, sum_ = _SHARE * sum(flops.values()), 0
    small = []
    for work, decision in sorted(((_work(d, flops), d) for d in found), key=lambda pair: pair[0]):
        sum_ += work
        if not work or sum_ > most:
            break
        small.append(decision)
    return small


def _work(decision: Decision, flops: dict[str, int]) -> int:
    return sum(flops.get(use.output, 0) for use in read_decision(decision).uses)
