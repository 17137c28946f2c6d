"""What int8 makes of one model: as it was given, or with scales moved in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from irtools.passes.quantization.forms.apply import within_opset
from irtools.passes.quantization.forms.choose import Chosen, Limits, choose, decide
from irtools.passes.quantization.forms.static import Static, observed_values
from irtools.passes.quantization.forms.storage import IntegerKernels, StoragePlanner
from irtools.passes.quantization.forms.stored8 import Stored8
from irtools.passes.quantization.forms.weight_only import WeightOnly
from irtools.passes.quantization.forms.weights import WeightForm
from irtools.passes.quantization.ranges.calibration import (
    Calibrator,
    Facts,
    calibrate,
)
from irtools.passes.quantization.ranges.evidence import Evidence
from irtools.passes.quantization.ranges.outliers import (
    OutlierLimits,
    find_outliers,
    without_outliers,
)
from irtools.passes.quantization.ranges.spec import ACTIVATION_S8, ACTIVATION_U8
from irtools.passes.quantization.remedy import FLOORS_DB, Candidate
from irtools.passes.quantization.sites.find import find_sites
from irtools.passes.quantization.sites.reasons import ALREADY, Skips
from irtools.passes.quantization.sites.uses import Weight
from irtools.passmanager import Decision, PassContext, Plan
from irtools.statistics import StatisticsService, calibrators
from irtools.words import counted

__all__ = ["Prospect", "Wishes"]


@dataclass(frozen=True)
class Wishes:
    """What the options of `int8` ask for, on a target.

    Attributes:
        pass_text: The pass and its options.
        form: What products become.
        limits: Which weights take part.
        calibrator: How the range of an activation is found.
        outliers: Most input channels of a product that are multiplied in float32.
        bias_correction: Biases take up the mean error of their weights.
        scales: Scales may be moved, and are looked for in what is collected.
        note: What is to be said first of what is quantized; empty for nothing.
    """

    pass_text: str
    form: WeightForm
    limits: Limits
    calibrator: str
    outliers: int
    bias_correction: bool
    scales: bool
    note: str = ""

    @property
    def is_static(self) -> bool:
        """Whether ranges of activations are fixed in advance."""
        return self.form.name == Static.name


class Prospect:
    """A model that could be quantized, and what calibration shows of it.

    Args:
        model: With its shapes. Stays as it is.
        wishes: What is asked for.
        ctx: For statistics and the target.
        scales: Decisions about scales that were moved in the model already.
    """

    def __init__(
        self,
        model: ir.Model,
        wishes: Wishes,
        ctx: PassContext,
        scales: Sequence[Decision] = (),
    ) -> None:
        self.model = model
        self.scales = tuple(scales)
        self._wishes = wishes
        self._ctx = ctx
        self.capabilities = ctx.target.capabilities
        self._plans: dict[float, Plan] = {}
        self._skipped = Skips()
        self._chosen = self._choose()
        self.facts = self._observe()

    @cached_property
    def static(self) -> tuple[Weight, ...]:
        """The weights that are multiplied with fixed ranges."""
        return tuple(weight for weight, form in self._chosen if form.name == Static.name)

    @property
    def storage(self) -> StoragePlanner:
        """What decides how weights are stored that are not multiplied in integers."""
        return self._storage(Evidence(self.capabilities), Skips())

    @property
    def is_drawn(self) -> bool:
        """Whether there are no ranges, or those of drawn data."""
        return not self.facts or self.statistics().synthetic

    def statistics(self) -> StatisticsService:
        """Return the statistics of the model."""
        return self._ctx.statistics(self.model)

    def candidate(self, floor: float) -> Candidate:
        """Return the channels that leave the integer products below a floor in decibels."""
        limits = OutlierLimits(self._wishes.outliers, floor)
        clips = self.capabilities.int8_clips
        return Candidate(floor, find_outliers(self.static, self.facts, limits, clips))

    def plan(self, candidate: Candidate) -> Plan:
        """Return the plan in which the channels of a candidate are multiplied in float32."""
        if candidate.floor_db not in self._plans:
            self._plans[candidate.floor_db] = self._plan(candidate)
        return self._plans[candidate.floor_db]

    def _plan(self, candidate: Candidate) -> Plan:
        rest = without_outliers(self.facts, candidate.outliers, self._calibrator)
        evidence = Evidence(
            self.capabilities, rest, candidate.outliers, self._wishes.bias_correction
        )
        made = self._skipped.copy()
        multiplied = decide(self._chosen, evidence, made)
        stored = self._storage(evidence, made).decide(
            self.model, {str(d.data["weight"]) for d in multiplied}
        )
        decisions = sorted((*multiplied, *stored), key=lambda d: (d.cost, d.subject))
        made.tell(found=bool(decisions))
        return Plan(
            pass_text=self._wishes.pass_text,
            decisions=(*self.scales, *decisions),
            cost_unit="relative squared error of the output",
            gain_unit="bytes",
            notes=tuple(n for n in (self._wishes.note if decisions else "", *made.notes) if n),
            counters=dict(made.counts),
            remedies=self._remedies(candidate),
        )

    def _choose(self) -> list[Chosen]:
        """Return what is multiplied or looked up in integers; the rest is a matter of storage."""
        limits, form = self._wishes.limits, self._wishes.form
        sites, others = find_sites(self.model), Skips()
        self._skipped.add(ALREADY, sites.skipped.counts[ALREADY.counter])
        chosen = choose(
            sites, lambda w: (*limits.tables(w), form), limits, self.capabilities, others
        )
        kept, note = within_opset(chosen, lambda c: c[1], self.model, fate="multiplied in float32")
        self._skipped.note(*others.notes, note)
        return kept

    def _observe(self) -> Facts:
        observed = observed_values(self.static, self.capabilities.int8_clips)
        if not observed:
            return {}
        service = self.statistics()
        if service.synthetic:
            self._skipped.note(
                "ranges come from synthetic data: give calibration data to trust them"
            )
        return calibrate(observed, self._calibrator, service)

    @property
    def _calibrator(self) -> Calibrator:
        symmetric = self.capabilities.int8_activation == "s8-symmetric"
        spec = ACTIVATION_S8 if symmetric else ACTIVATION_U8
        peaks = self._wishes.outliers > 0 or self._wishes.scales
        return Calibrator(calibrators()[self._wishes.calibrator](), spec, peaks=peaks)

    def _storage(self, evidence: Evidence, skipped: Skips) -> StoragePlanner:
        limits = self._wishes.limits
        tables = limits.embeddings != "none"
        return StoragePlanner(
            Stored8(),
            evidence,
            limits.exclude,
            limits.min_size,
            tables,
            self._integer_kernels,
            skipped,
        )

    @cached_property
    def _integer_kernels(self) -> IntegerKernels | None:
        if self._wishes.form.name == WeightOnly.name:
            return None
        static_ops = self.capabilities.int8_static_ops
        waits = "Conv" in static_ops and not self._wishes.is_static
        names = frozenset(weight.name for weight in find_sites(self.model).weights)
        return IntegerKernels(self.model.graph, names, need_ranges=waits)

    def _remedies(self, taken: Candidate) -> tuple[str, ...]:
        """Return options that would cost time and keep more."""
        if not self.static:
            return ()
        found = []
        high = self.candidate(FLOORS_DB[-1])
        more = len(high.outliers) - len(taken.outliers)
        if more > 0:
            found.append(
                f"outlier-floor={high.floor_db:g}, which multiplies large channels of "
                f"{counted(more, 'more activation')} in float32"
            )
        if self._wishes.calibrator == "minmax":
            found.append("calibrator=mse, which leaves rare values out of the ranges")
        found.append("mode=weight-only, which rounds no activations and is hardly faster")
        return tuple(found)
