"""Whether the weights of integer products are rounded for the data that they are multiplied with.

That (`ranges.rounding`) costs no time when the model runs, but the second moments of every input of
a product, [K, K], and O(K^3) for each. So it is tried once, where calibration data shows that the
outputs keep too little of the original's, for as many inputs as one sweep collects moments of:
those first whose weights lose most for the memory. In an encoder of 384 channels that is all of
them, in one of 768 all but the wide input of the feed-forward's second product, which takes more
time than all others together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import onnx_ir as ir

from irtools.passes.quantization.forms.static import Static
from irtools.passes.quantization.forms.token_wise import TokenWise
from irtools.passes.quantization.ranges.gptq import GROUP_BYTES, Hessians, moment_bytes
from irtools.passes.quantization.ranges.rounding import Moments
from irtools.passes.quantization.remedy import least_gain
from irtools.passes.quantization.sites.find import find_sites
from irtools.passes.quantization.sites.uses import Weight
from irtools.passes.quantization.trial_run import Trials
from irtools.passmanager import Decision, PassContext, Plan
from irtools.words import counted

__all__ = ["moments_for", "rounded_for_data"]

_WIDEST = 4096
"""Input channels above which a weight is rounded to the nearest: its moments take 130 MB."""

_AUTO = "gptq"

_REMEDY = "method=gptq, which rounds all weights for the calibration data and takes minutes"

_NOTHING = (
    "no weight is rounded for data: that is for matrices of static products, read with one input "
    "and stored in 8 bits"
)


def rounded_for_data(plan: Plan, weights: Iterable[Weight], trials: Trials, method: str) -> Plan:
    """Return the plan with weights rounded for calibration data where that keeps more.

    Args:
        plan: With weights rounded to the nearest.
        weights: Those that are multiplied with fixed ranges.
        trials: Measures what plans keep.
        method: A rounding, for all weights and without a trial; or `auto`.
    """
    rounded = [weight for weight in weights if _fits(weight)]
    if method != "auto":
        changed, count = _with_rounding(plan, {weight.name for weight in rounded}, method)
        return changed if count else replace(plan, notes=(*plan.notes, _NOTHING))
    if not rounded or trials.run is None or trials.run.drawn:
        return plan
    before = trials.kept_db(plan)
    gain = None if before is None else least_gain(before)
    if before is None or gain is None:
        return plan
    cheap = _most_for_memory(plan, rounded)
    changed, count = _with_rounding(plan, {weight.name for weight in cheap}, _AUTO)
    if len(cheap) < len(rounded):
        plan = replace(plan, remedies=(_REMEDY, *plan.remedies))
        changed = replace(changed, remedies=plan.remedies)
    after = trials.kept_db(changed) if count else None
    if after is None or after < before + gain:
        return plan
    note = (
        f"{counted(count, 'weight')} rounded for calibration data: {after:.1f} dB instead of "
        f"{before:.1f} dB ({trials.told})"
    )
    return replace(changed, notes=(*plan.notes, note))


def _most_for_memory(plan: Plan, weights: Sequence[Weight]) -> list[Weight]:
    """Return weights whose moments fit into memory, those first that lose most for it."""
    costs = {str(d.data.get("weight")): d.cost for d in plan.decisions}
    by_input: dict[str, list[Weight]] = {}
    for weight in weights:
        by_input.setdefault(weight.uses[0].activation.name or "", []).append(weight)

    def worth(group: list[Weight]) -> float:
        return sum(costs.get(w.name, 0.0) for w in group) / moment_bytes(group)

    chosen: list[Weight] = []
    for group in sorted(by_input.values(), key=worth, reverse=True):
        if moment_bytes([*chosen, *group]) <= GROUP_BYTES:
            chosen += group
    return chosen


def _with_rounding(plan: Plan, names: set[str], method: str) -> tuple[Plan, int]:
    """Return the plan with some weights rounded by a method, and how many these are."""
    decisions = tuple(_for_data(decision, names, method) for decision in plan.decisions)
    count = sum(bool(d.data.get("rounding")) for d in decisions)
    return replace(plan, decisions=decisions), count


def moments_for(
    model: ir.Model, plan: Plan, ctx: PassContext
) -> tuple[Callable[[Weight], Moments] | None, str]:
    """Return what gives the moments of weights that a plan rounds for data, and a note.

    Args:
        model: Before any of its weights changes.
        plan: About it.
        ctx: For statistics.
    """
    names = {str(d.data["weight"]) for d in plan.decisions if d.data.get("rounding")}
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


def _for_data(decision: Decision, fitting: set[str], method: str) -> Decision:
    data = decision.data
    if data.get("form") not in (Static.name, TokenWise.name) or data["weight"] not in fitting:
        return decision
    # Codes that move by more than a step could leave 16 bits in pairs.
    if data["weight_range"] == "pairs":
        return decision
    action = f"{decision.action}, rounded for the data by {method}"
    return replace(decision, action=action, data={**data, "rounding": method})
