"""The pass `smooth`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.errors import OptionError
from irtools.passmanager import (
    FOLLOWED_GRAPH,
    Decision,
    Exactness,
    PassContext,
    PassResult,
    Plan,
    PlanningPass,
    option,
    pass_text,
)
from irtools.scaling import (
    COUNTERS,
    ROUNDINGS,
    ScaledSite,
    ScaleSettings,
    apply_scales,
    plan_scales,
)
from irtools.statistics import StatisticsService
from irtools.words import tallied

__all__ = ["Smooth"]


@dataclass(frozen=True)
class Smooth(PlanningPass):
    """Move scales of channels to where quantization loses least, without changing the function.

        X W  =  (X / s) (diag(s) W)          s > 0, one for every input channel of a product

    A few channels of a transformer are much larger than the others, and one range for the tensor
    leaves the others few steps. Divided by s, the channels are alike; the weight takes the rest,
    with a range for every output channel. 1 / s goes, at no cost, into the gain and offset of the
    normalization before query, key, value and feed-forward (SmoothQuant, Xiao et al. 2023), into
    the columns of V for the output projection, through attention and grouped heads, into the
    columns of `up` for `down`, through the product with the gate, and into the Conv or product
    before a Relu (cross-layer equalization, Nagel et al. 2019): into whatever makes the channels,
    if every operator in between passes a positive scale on. All that reads or makes a channel is
    scaled alike, also where layers share their weights.

    Where the residual of an encoder reads the normalization too, it reads `Mul(X / s, s)` (gamma
    migration, Wei et al. 2022); where nothing takes a scale up, as after GELU, products read
    `Mul(X, 1 / s)`. Such a Mul costs about 0.3 % of a small encoder's time each, and is written
    where it gains `mul-gain` decibels.

    s is found for each site from statistics of one sweep of the calibration data and the weights,
    in closed form along a line, and no model is run for it: it is what leaves the least expected
    tr(E^T H E), the rounding error of the products after it. Channels that are always zero stay.
    In models of 16 bits scales are powers of two, which change no digit.

    Left alone and counted, each with one reason: channels that an output of the model or another
    operator reads, such as values in a cache; weights that another node reads in another way (tied
    tables); what calibration data never reached.
    """

    name: ClassVar[str] = "smooth"
    exactness: ClassVar[Exactness] = Exactness.REASSOCIATED
    idempotent: ClassVar[bool] = False
    requires: ClassVar[tuple[str, ...]] = FOLLOWED_GRAPH
    counters: ClassVar[Mapping[str, str]] = COUNTERS

    rounding: Literal["int8", "int4"] = option(
        "int8",
        "what follows: int8 with ranges of activations, or weights of 4 bits in blocks of 32 (AWQ)",
    )
    strength: float | None = option(
        None,
        "0: weights alone decide, 1: activations alone (alpha of SmoothQuant), for all sites; "
        "none: the best one of each",
    )
    mul_gain: float | None = option(
        3.0,
        "decibels, signal to rounding noise of a product, for which a Mul is written where a scale "
        "cannot be folded; none: never",
    )
    exclude: tuple[str, ...] = option(
        (), "module, node or value name patterns of products whose inputs stay as they are"
    )

    def __post_init__(self) -> None:
        if self.strength is not None and not 0 <= self.strength <= 1:
            raise OptionError(f"strength is {self.strength}, expected 0 to 1")
        if self.mul_gain is not None and not 0 <= self.mul_gain <= 100:
            raise OptionError(f"mul-gain is {self.mul_gain}, expected 0 to 100 decibels")

    def plan(self, model: ir.Model, ctx: PassContext) -> Plan:
        notes: list[str] = []

        def statistics() -> StatisticsService:
            service = ctx.statistics(model)
            if service.synthetic:
                notes.append("scales come from synthetic data: give calibration data to trust them")
            return service

        settings = ScaleSettings(
            rounding=ROUNDINGS[self.rounding],
            alpha=self.strength,
            mul_gain_db=self.mul_gain,
            exclude=self.exclude,
        )
        found = plan_scales(model, ctx.analysis(SymbolicShapes, model), statistics, settings)
        skipped = {f"num-skipped-{name}": n for name, n in found.skipped.items() if n}
        if skipped:
            told = (tallied(n, self.counters[name]) for name, n in skipped.items())
            notes.append("; ".join(told))
        return Plan(
            pass_text=pass_text(self),
            decisions=tuple(_decision(site) for site in found.sites),
            cost_unit="Mul nodes",
            gain_unit="dB, signal to rounding noise of the products",
            notes=tuple(notes),
            counters=skipped,
        )

    def apply(self, model: ir.Model, plan: Plan, ctx: PassContext) -> PassResult:
        sites = [ScaledSite.from_data(decision.data) for decision in plan.decisions]
        if not sites:
            return PassResult(False, plan.counters, plan.notes, plan=plan)
        counts = apply_scales(model, sites, self.name)
        return PassResult(True, {**plan.counters, **counts}, plan.notes, plan=plan)


def _decision(site: ScaledSite) -> Decision:
    return Decision(
        subject=site.module,
        action=site.action,
        cost=float(site.muls),
        gain=round(site.gain_db, 2),
        data=site.to_data(),
    )
