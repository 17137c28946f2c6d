"""Whether the weights of static products are rounded for the data that they are multiplied with.

GPTQ (`ranges.gptq`) costs no time when the model runs, but the second moments of every input of a
product, [K, K], and O(K^3) for each. So it is tried once, where calibration data shows that the
outputs keep too little of the original's, and where one sweep collects all moments: that is an
encoder of 384 channels, and not one of 768, for which it is a remedy to ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import onnx_ir as ir

from irtools.passes.quantization.forms.static import Static
from irtools.passes.quantization.ranges.gptq import GROUP_BYTES, Hessians, Moments, moment_bytes
from irtools.passes.quantization.remedy import GAIN_DB, NEED_DB
from irtools.passes.quantization.sites.find import find_sites
from irtools.passes.quantization.sites.uses import Weight
from irtools.passes.quantization.trial_run import Trials
from irtools.passmanager import Decision, PassContext, Plan
from irtools.words import counted

__all__ = ["moments_for", "rounded_for_data"]

_WIDEST = 4096
"""Input channels above which a weight is rounded to the nearest: its moments take 130 MB."""

_REMEDY = "method=gptq, which rounds weights for the calibration data and takes minutes"

_NOTHING = (
    "method=gptq rounds no weight: it is for matrices of static products, read with one input and "
    "stored in 8 bits"
)


def rounded_for_data(
    plan: Plan, weights: Iterable[Weight], trials: Trials, *, forced: bool
) -> Plan:
    """Return the plan with weights rounded for calibration data where that keeps more.

    Args:
        plan: With weights rounded to the nearest.
        weights: Those that are multiplied with fixed ranges.
        trials: Measures what plans keep.
        forced: Without a trial.
    """
    rounded = [weight for weight in weights if _fits(weight)]
    fitting = {weight.name for weight in rounded}
    decisions = tuple(_for_data(decision, fitting) for decision in plan.decisions)
    count = sum(bool(d.data.get("for_data")) for d in decisions)
    changed = replace(plan, decisions=decisions)
    if forced:
        return changed if count else replace(plan, notes=(*plan.notes, _NOTHING))
    if not count or trials.run is None or trials.run.drawn:
        return plan
    before = trials.kept_db(plan)
    if before is None or before >= NEED_DB:
        return plan
    if moment_bytes(rounded) > GROUP_BYTES:
        return replace(plan, remedies=(_REMEDY, *plan.remedies))
    after = trials.kept_db(changed)
    if after is None or after < before + GAIN_DB:
        return plan
    note = (
        f"{counted(count, 'weight')} rounded for calibration data: {after:.1f} dB instead of "
        f"{before:.1f} dB ({trials.told})"
    )
    return replace(changed, notes=(*plan.notes, note))


def moments_for(
    model: ir.Model, plan: Plan, ctx: PassContext
) -> tuple[Callable[[Weight], Moments] | None, str]:
    """Return what gives the moments of weights that a plan rounds for data, and a note.

    Args:
        model: Before any of its weights changes.
        plan: About it.
        ctx: For statistics.
    """
    names = {str(d.data["weight"]) for d in plan.decisions if d.data.get("for_data")}
    if not names:
        return None, ""
    # The service reads the model when it is asked, and by then part of it is quantized.
    before = model.clone()
    service = ctx.statistics(before)
    weights = [weight for weight in find_sites(before).weights if weight.name in names]
    drawn = "weights rounded for synthetic data: give calibration data to trust it"
    return Hessians(service, weights).moments_of, drawn if service.synthetic else ""


def _fits(weight: Weight) -> bool:
    array = weight.tensor.shape.numpy()
    return (
        len(array) == 2
        and int(array[1 - weight.uses[0].axis]) <= _WIDEST
        and all(use.kind in ("matmul", "gemm") for use in weight.uses)
        and len({use.activation for use in weight.uses}) == 1
    )


def _for_data(decision: Decision, fitting: set[str]) -> Decision:
    data = decision.data
    if data.get("form") != Static.name or data["weight"] not in fitting:
        return decision
    # Codes that move by more than a step could leave 16 bits in pairs.
    if data["weight_range"] == "pairs":
        return decision
    action = f"{decision.action}, rounded for the data"
    return replace(decision, action=action, data={**data, "for_data": True})
