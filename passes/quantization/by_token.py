"""Static products whose inputs get a range for each token, as few as a trial run shows need it.

In decoders a few tokens, such as the first, make the input of a product hundreds of times larger
than all others do (massive activations, Sun et al. 2024), and what comes of a gated unit is large
in other channels for every token. One fixed range leaves the others few bits; a range for each
token does not, and no text leaves it. That costs five small operators for each input and no product
in float32, so that it is tried before weights are stored instead of multiplied (`spared`). Where it
is needed it is tried with moved scales as well (`smoothed`), which make the channels of a token
alike: its range does not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from irtools.passes.quantization.forms.apply import within_opset
from irtools.passes.quantization.forms.static import Static
from irtools.passes.quantization.forms.token_wise import TokenWise
from irtools.passes.quantization.ranges.evidence import Evidence
from irtools.passes.quantization.sites.reasons import Reason
from irtools.passes.quantization.sites.uses import Weight
from irtools.passes.quantization.spared import near_db
from irtools.passes.quantization.trial_run import Trials
from irtools.passmanager import Decision, Plan
from irtools.words import counted

__all__ = ["RATIO", "SCALED_RATIO", "by_token", "with_token_ranges"]

_SHARES = (6, 3, 1)
"""One product in so many is tried: a sixth, a third, all that gain."""

_MORE_DB = 1.0
"""What a larger share must gain."""

RATIO = 2.0
"""A product is a candidate whose predicted error is so much smaller: by 3 dB."""

SCALED_RATIO = 1.25
"""The same once scales have made the error of activations as small as that of weights, which ranges
do not change: by 1 dB."""


@dataclass(frozen=True)
class _Group:
    """Products of one input: it is measured once for all of them.

    Attributes:
        decisions: By weight.
        gain: Predicted relative squared error that is removed, summed.
    """

    decisions: Mapping[str, Decision]
    gain: float


def by_token(
    plan: Plan,
    model: ir.Model,
    weights: Sequence[Weight],
    form: TokenWise,
    evidence: Evidence,
    trials: Trials,
    least_db: float,
    ratio: float = RATIO,
) -> Plan:
    """Return the plan with ranges for each token where too little is kept without; it says so.

    Args:
        plan: Of static products.
        model: That it was made on. Stays as it is.
        weights: Those that are multiplied with fixed ranges.
        form: What they may become.
        evidence: What is known of their inputs.
        trials: Measures what plans keep.
        least_db: What the outputs must keep.
        ratio: How much smaller the predicted error of a product must be.
    """
    before = None if trials.run is None else trials.kept_db(plan)
    if before is None or trials.run is None or before >= least_db + near_db(trials.run):
        return plan
    groups = _groups(plan, model, weights, form, evidence, ratio)
    products = sum(d.data.get("form") == Static.name for d in plan.decisions)
    best, kept, count = plan, before, 0
    for some in _nested(groups, products):
        changed = _with(plan, {name: d for group in some for name, d in group.decisions.items()})
        after = trials.kept_db(changed)
        if after is None or after < kept + _MORE_DB:
            continue  # Where noise has many sources, a few of them are little of it.
        best, kept, count = changed, after, sum(len(group.decisions) for group in some)
        if kept >= least_db + near_db(trials.run):
            break
    if not count:
        return plan
    note = (
        f"{counted(count, 'product')} with a range for each token, found at run time: "
        f"{kept:.1f} dB, with fixed ranges for all {before:.1f} dB ({trials.told}); "
        "least-sqnr=none keeps all of them fixed"
    )
    return replace(best, notes=(*plan.notes, note))


def with_token_ranges(
    plan: Plan,
    weights: Sequence[Weight],
    form: TokenWise,
    evidence: Evidence,
    results: Collection[str],
) -> Plan:
    """Return the plan with ranges for each token for some products, whatever they gain.

    Args:
        plan: Of static products.
        weights: Those that are multiplied with fixed ranges.
        form: What some of them become.
        evidence: What is known of their inputs.
        results: Names of the results of these products, which can have such ranges.
    """
    own = {str(d.data["weight"]): d for d in plan.decisions if d.data.get("form") == Static.name}
    changed: dict[str, Decision] = {}
    for weight in weights:
        if weight.name in own and any(use.output.name in results for use in weight.uses):
            found = form.decide(weight, evidence)
            assert not isinstance(found, Reason)
            changed[weight.name] = replace(found, subject=own[weight.name].subject)
    return _with(plan, changed)


def _groups(
    plan: Plan,
    model: ir.Model,
    weights: Sequence[Weight],
    form: TokenWise,
    evidence: Evidence,
    ratio: float,
) -> list[_Group]:
    """Return the products that gain, those first that gain most."""
    own = {str(d.data["weight"]): d for d in plan.decisions if d.data.get("form") == Static.name}
    by_input: dict[ir.Value, list[Weight]] = {}
    for weight in weights:
        by_input.setdefault(weight.uses[0].activation, []).append(weight)
    if within_opset([form], lambda f: f, model)[1]:
        return []
    found = []
    for together in by_input.values():
        made = {w.name: _decided(w, own.get(w.name), form, evidence, ratio) for w in together}
        decisions = {name: d for name, d in made.items() if d is not None}
        if len(decisions) == len(made):
            gain = sum(own[name].cost - d.cost for name, d in decisions.items())
            found.append(_Group(decisions, gain))
    return sorted(found, key=lambda group: -group.gain)


def _decided(
    weight: Weight, own: Decision | None, form: TokenWise, evidence: Evidence, ratio: float
) -> Decision | None:
    """Return the decision for a range for each token; None where it cannot be, or gains little."""
    if own is None or not form.serves(weight) or form.fits(weight, evidence.capabilities):
        return None
    if len({use.activation for use in weight.uses}) > 1:
        return None
    found = form.decide(weight, evidence)
    if isinstance(found, Reason) or found.cost * ratio > own.cost:
        return None
    return replace(found, subject=own.subject)


def _nested(groups: Sequence[_Group], products: int) -> Iterator[Sequence[_Group]]:
    """Yield the groups that gain most, a larger share of the products each time."""
    last = 0
    for share in _SHARES:
        sum_, end = 0, 0
        for group in groups:
            if (sum_ + len(group.decisions)) * share > products:
                break
            sum_, end = sum_ + len(group.decisions), end + 1
        if end > last:
            yield groups[:end]
        last = max(last, end)


def _with(plan: Plan, changed: Mapping[str, Decision]) -> Plan:
    made = [
        changed.get(str(d.data["weight"]), d) if d.data.get("form") == Static.name else d
        for d in plan.decisions
    ]
    return replace(plan, decisions=tuple(made))
