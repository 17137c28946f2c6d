"""Whether scales are moved before int8, and which: what calibration data shows to gain.

Scales change nothing but what is rounded (`irtools.scaling`). Those that can be folded cost no
time. A Mul costs a small encoder about 0.3 % of it, and is written only where too little is kept
without, and where it removes more than its share of the error. Rounding errors of many layers add
up, or cancel: whether products that lose less make better outputs is measured, on the samples that
`trial_run` runs.

A range for each token asks for other scales than a fixed one does: large channels of single tokens
no longer cost all others their steps, so that less of them has to go into the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.model import infer_shapes
from irtools.passes.quantization.forms.registry import read_decision
from irtools.passes.quantization.forms.static import Static
from irtools.passes.quantization.forms.token_wise import TokenWise
from irtools.passes.quantization.prospect import Prospect
from irtools.passes.quantization.remedy import GAIN_DB, NEED_DB
from irtools.passes.quantization.trial_run import Trials, largest_tried, weight_bytes
from irtools.passmanager import Decision, Plan
from irtools.scaling import COUNTERS, ScaledSite, Scales, ScaleSettings, apply_scales, plan_scales
from irtools.words import counted, tallied

__all__ = ["Smoothing", "scales_in"]

_PREDICTED_DB = 1.0
"""What scales must gain by prediction, where nothing can be run."""

_REMEDY = "smooth=true, which moves scales of channels and takes memory for a copy of the weights"

_MUCH = 0.5
"""Share of the predicted error of all products that scales must remove where the outputs keep
enough without: other samples reach beyond the ranges of channels that were made alike."""

_PAYS = 0.02
"""Share of the predicted error of all products that a Mul must remove: about 0.1 dB."""


def scales_in(plan: Plan) -> tuple[tuple[Decision, ...], Plan]:
    """Return the decisions of a plan about scales, and the plan without them."""
    scales = tuple(d for d in plan.decisions if "site" in d.data)
    rest = tuple(d for d in plan.decisions if "site" not in d.data)
    return scales, replace(plan, decisions=rest)


@dataclass(frozen=True)
class Smoothing:
    """Moves scales in a model that is to be quantized.

    Attributes:
        forced: All scales that are found, without a trial.
        floor_db: Of the candidate that says what is kept at no cost.
        trials: Measures what plans keep.
        prospect_of: Makes the prospect of a model in which scales were moved.
        plan_of: Makes the best plan of a prospect.
        by_token: Makes one with ranges for each token, of as many products as keep 26 dB.
        for_tokens: Makes one with such ranges for the products with some results.
        name: Of the pass.
    """

    forced: bool
    floor_db: float
    trials: Trials
    prospect_of: Callable[[ir.Model, Sequence[Decision]], Prospect]
    plan_of: Callable[[Prospect], Plan]
    by_token: Callable[[Prospect], Plan]
    for_tokens: Callable[[Prospect, Collection[str]], Plan]
    name: str

    def best(self, plain: Prospect) -> tuple[Prospect, Plan]:
        """Return the prospect with scales where they gain, and its plan, which says so."""
        if not self.forced and plain.is_drawn:
            return plain, self.plan_of(plain)
        if not self.forced and weight_bytes(plain.model) > largest_tried():
            plan = self.plan_of(plain)
            return plain, replace(plan, remedies=(_REMEDY, *plan.remedies))
        found = _found(plain)
        if self.forced:
            return self._forced(plain, found)
        first = plain.plan(plain.candidate(self.floor_db))
        kept = self.trials.kept_db(first)
        if kept is not None and kept >= NEED_DB:
            sites = _free(found.sites, _error(first))
        else:
            sites = _paying(found.sites, _error(first))
        return self._better(plain, sites) if sites else (plain, self.plan_of(plain))

    def _forced(self, plain: Prospect, found: Scales) -> tuple[Prospect, Plan]:
        if not found.sites:
            return plain, _noting(self.plan_of(plain), _nothing(found))
        scaled = self._with(plain, found.sites)
        return scaled, _noting(self.plan_of(scaled), _told(found.sites))

    def _with(self, plain: Prospect, sites: Iterable[ScaledSite]) -> Prospect:
        decisions = [_decision(site) for site in sites]
        model = plain.model.clone()
        apply_scales(model, [ScaledSite.from_data(d.data) for d in decisions], self.name)
        infer_shapes(model)
        return self.prospect_of(model, decisions)

    def _better(self, plain: Prospect, sites: Sequence[ScaledSite]) -> tuple[Prospect, Plan]:
        scaled = self._with(plain, sites)
        plans = [self.plan_of(each) for each in (plain, scaled)]
        before, after = (self.trials.kept_db(plan) for plan in plans)
        if before is not None and after is not None and after < before + _needed(*plans):
            # Without scales ranges for each token were needed: with them as many may keep more.
            again = self.by_token(scaled) if _by_token(plans[0]) else plans[1]
            if _costly(again) <= _costly(plans[0]):
                plans[1], after = again, self.trials.kept_db(again)
        if after is not None and _by_token(plans[1]):
            scaled, plans[1], sites = self._scaled_for_tokens(plain, scaled, plans[1], sites)
            after = self.trials.kept_db(plans[1])
        how = self.trials.told
        needed = _needed(*plans)
        if before is None or after is None:
            before, after = (-10 * math.log10(max(_error(plan), 1e-30)) for plan in plans)
            needed, how = _PREDICTED_DB, "predicted for all products together"
        figures = f"{after:.1f} dB with it, {before:.1f} dB without ({how})"
        if after < before + needed:
            note = f"channels keep their scales: {_told(sites)} would give {figures}"
            return plain, _noting(plans[0], note)
        return scaled, _noting(plans[1], f"{_told(sites)}: {figures}")

    def _scaled_for_tokens(
        self, plain: Prospect, scaled: Prospect, plan: Plan, sites: Sequence[ScaledSite]
    ) -> tuple[Prospect, Plan, Sequence[ScaledSite]]:
        """Return prospect, plan and sites, with scales for ranges of each token where they gain.

        No further product gets such a range, and no further input a Mul: this takes no time.
        """
        before, results = self.trials.kept_db(plan), _token_results(plan)
        chosen = {site.name for site in sites}
        found = _found(plain, results).sites
        again = [site for site in found if site.name in chosen or not site.muls]
        other = self._with(plain, again)
        made = self.for_tokens(other, results)
        after = self.trials.kept_db(made)
        if before is None or after is None or _costly(made) > _costly(plan):
            return scaled, plan, sites
        if after < before + GAIN_DB:
            return scaled, plan, sites
        note = (
            f"scales of {counted(sum(site.inputs for site in again), 'input')} chosen for the "
            f"ranges of tokens: {after:.1f} dB, with those for fixed ranges {before:.1f} dB "
            f"({self.trials.told})"
        )
        return other, _noting(replace(plan, decisions=made.decisions), note), again


def _noting(plan: Plan, note: str) -> Plan:
    return replace(plan, notes=(*plan.notes, note))


def _needed(plain: Plan, scaled: Plan) -> float:
    """Return what scales must gain in decibels: less than nothing where they save time."""
    return GAIN_DB if _costly(scaled) >= _costly(plain) else -GAIN_DB


def _costly(plan: Plan) -> int:
    """Return how many weights cost more than a Mul does.

    That is, have channels in float32 or a range for each token.
    """
    return _by_token(plan) + sum(bool(d.data.get("outliers")) for d in plan.decisions)


def _by_token(plan: Plan) -> int:
    """Return how many weights have a range for each token."""
    return sum(d.data.get("form") == TokenWise.name for d in plan.decisions)


def _token_results(plan: Plan) -> frozenset[str]:
    """Return the names of the results of products with a range for each token."""
    made = (read_decision(d) for d in plan.decisions if d.data.get("form") == TokenWise.name)
    return frozenset(use.output for each in made for use in each.uses)


def _found(plain: Prospect, by_token: Collection[str] = ()) -> Scales:
    """Return the scales that gain, and those with a Mul for ranges of tokens that gain a little."""
    usual = ScaleSettings(weights={weight.name for weight in plain.static})
    least = usual.least_gain_db if by_token else usual.mul_gain_db
    settings = replace(usual, by_token=by_token, mul_gain_db=least)
    shapes = SymbolicShapes.of(plain.model)
    return plan_scales(plain.model, shapes, plain.statistics, settings)


def _error(plan: Plan) -> float:
    """Return the predicted relative squared error of all products, summed."""
    return sum(d.cost for d in plan.decisions if d.data.get("form") == Static.name)


def _free(sites: Iterable[ScaledSite], error: float) -> list[ScaledSite]:
    """Return the sites that cost nothing, where together they remove enough of the error."""
    free = [site for site in sites if not site.muls]
    return free if _removed(free) >= _MUCH * error else []


def _paying(sites: Iterable[ScaledSite], error: float) -> list[ScaledSite]:
    """Return the sites that cost nothing, and those of which each Mul removes its share."""
    paying = [site for site in sites if not site.muls]
    costly = [site for site in sites if site.muls]
    rest = error - _removed(paying)
    for site in sorted(costly, key=lambda s: -_removed([s]) / s.muls):
        if _removed([site]) < _PAYS * site.muls * rest:
            break
        paying.append(site)
        rest -= _removed([site])
    return paying


def _removed(sites: Iterable[ScaledSite]) -> float:
    return sum(site.before - site.after for site in sites)


def _decision(site: ScaledSite) -> Decision:
    return Decision(site.module, f"{site.action}: {site.gain_db:.1f} dB", data=site.to_data())


def _told(sites: Sequence[ScaledSite]) -> str:
    """Say what is moved, for the report."""
    inputs, muls = sum(site.inputs for site in sites), sum(site.muls for site in sites)
    cost = f" with {counted(muls, 'Mul node')}" if muls else ""
    return f"smoothing {counted(inputs, 'input')} of products{cost}"


def _nothing(found: Scales) -> str:
    """Say why no scale is moved though it was asked for."""
    why = [tallied(n, COUNTERS[f"num-skipped-{name}"]) for name, n in found.skipped.items() if n]
    return f"no scale moved: {'; '.join(why) or 'no product has an input that can be scaled'}"
