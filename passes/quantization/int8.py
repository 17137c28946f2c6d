"""The pass `int8`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from irtools.errors import OptionError
from irtools.model import infer_shapes
from irtools.passes.quantization.forms.apply import apply_plan, within_opset
from irtools.passes.quantization.forms.blocks import BlockTable
from irtools.passes.quantization.forms.choose import Chosen, Limits, choose, decide
from irtools.passes.quantization.forms.dynamic import Dynamic
from irtools.passes.quantization.forms.half import Half
from irtools.passes.quantization.forms.modes import (
    best_mode,
    product_form,
    range_of,
    slow_note,
)
from irtools.passes.quantization.forms.registry import counters_of
from irtools.passes.quantization.forms.rows import RowTable
from irtools.passes.quantization.forms.static import Static, observed_values
from irtools.passes.quantization.forms.storage import REASONS as STORAGE_REASONS
from irtools.passes.quantization.forms.storage import StoragePlanner
from irtools.passes.quantization.forms.stored8 import Stored8
from irtools.passes.quantization.forms.weight_only import WeightOnly
from irtools.passes.quantization.forms.weights import WeightForm
from irtools.passes.quantization.ranges.calibration import Calibrator, Facts, calibrate
from irtools.passes.quantization.ranges.evidence import Evidence
from irtools.passes.quantization.ranges.outliers import (
    Channels,
    OutlierLimits,
    find_outliers,
    without_outliers,
)
from irtools.passes.quantization.ranges.spec import ACTIVATION_S8, ACTIVATION_U8
from irtools.passes.quantization.remedy import FLOORS_DB, Candidate, best_plan
from irtools.passes.quantization.sites.find import find_sites
from irtools.passes.quantization.sites.reasons import ALREADY, Skips
from irtools.passes.quantization.sites.uses import Weight
from irtools.passes.quantization.spared import FinerForms, spare
from irtools.passes.quantization.trial_run import LazyTrial
from irtools.passes.quantization.write.desk import Desk
from irtools.passmanager import (
    FOUND_WEIGHTS,
    Exactness,
    PassContext,
    PassResult,
    Plan,
    PlanningPass,
    option,
    pass_text,
)
from irtools.targets import Capabilities
from irtools.words import counted

__all__ = ["Int8"]


@dataclass(frozen=True)
class Int8(PlanningPass):
    """Quantize weights to 8-bit integers, and the multiplications by them with them.

    Static: `QuantizeLinear`/`DequantizeLinear` pairs whose ranges come from calibration data; u8
    affine activations in front of MatMul, Gemm and Conv, s8 symmetric weights with one scale per
    output channel. Softmax, normalizations, activation functions and attention stay in float32.
    Input channels that are much larger than all others (a few in many transformers) are multiplied
    in float32 next to the integer product, as in LLM.int8() (Dettmers et al. 2022): one range for
    the whole tensor would leave the others no bits. How many, calibration data decides: where the
    quantized model keeps less than 26 dB of the original's outputs on 16 samples, more channels
    leave the integer product, of at most one product in six, or of as many as 20 dB take.
    Between Convs integers are passed on; for ONNX Runtime every Conv outputs integers, so an
    output of the model that a Conv makes has 256 steps there.
    Dynamic: activations are measured at run time; MatMul and Gemm only. Weight-only: weights are
    stored as integers, what they are multiplied in is the runtime's choice. Embedding tables are
    stored in 8 bits with one scale per row in every mode, or in 4 bits with a scale for every 32
    neighbours in a row.

    Every other weight is stored in 8 bits and expanded when the runtime loads the model, so that
    the file is close to a quarter and the speed that of the original: Conv without ranges,
    ConvTranspose, LSTM, GRU and RNN (where the target has a kernel for it, LSTM is multiplied in
    integers), batched and left-hand constants, Einsum, small products, and whatever is in
    branches of If, bodies of Loop and Scan, and functions.

    What comes of it is run on some of the calibration data, or on drawn inputs where none was given
    (not with `--no-check`). Where less than 20 dB of the outputs are kept, the weights that lose
    most are stored in 8 bits instead of multiplied, or in 16 bits, until enough is kept.

    Left alone and counted: weights that hold NaN or infinity or that 8 bits keep to less than
    30 dB, weights that another node reads in another way, constants that are added and not
    multiplied by, weights that are inputs of the model too, types other than float32 and float16,
    what is int8 already. A note says why where nothing was found.
    """

    name: ClassVar[str] = "int8"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    requires: ClassVar[tuple[str, ...]] = FOUND_WEIGHTS
    stores: ClassVar[bool] = True
    counters: ClassVar[dict[str, str]] = counters_of(
        (Static, Dynamic, WeightOnly, RowTable, BlockTable, Stored8, Half),
        (ALREADY, *STORAGE_REASONS),
    )

    mode: Literal["auto", "static", "dynamic", "weight-only"] = option(
        "auto",
        "static: fixed ranges, of synthetic data where no other is given; dynamic: ranges at run "
        "time; weight-only: 8 bits in the file; auto: static with calibration data, else dynamic "
        "where the target is fast at it, else weight-only, as where int8 products are slower than "
        "float32; what has no such form is stored",
    )
    calibrator: Literal["minmax", "mse", "percentile", "entropy"] = option(
        "minmax", "how the range of an activation is found from what was seen of it"
    )
    exclude: tuple[str, ...] = option(
        (), "module, node or weight name patterns that stay in float32, such as `classifier`"
    )
    embeddings: Literal["8", "4", "none"] = option(
        "8",
        "bits of embedding tables; 8: one scale per row; 4: in blocks of 32, from opset 21 on, "
        "tables below 32 * min-size elements in 8; none: left in float32",
    )
    bias_correction: bool = option(
        True, "shift biases by the mean error of their weights (static only)"
    )
    reduce_range: Literal["auto", "pairs", "true", "false"] = option(
        "auto",
        "pairs: scales with which no two neighbouring products leave 16 bits; true: 7-bit weights; "
        "false: all 8 bits; auto: pairs where the target's products saturate, else false",
    )
    outliers: int = option(
        8,
        "most input channels of a product, one in 64, that are multiplied in float32 where their "
        "range would leave the others too few bits (static only); 0: none",
    )
    outlier_floor: float | None = option(
        None,
        "decibels, signal to rounding noise of the other channels, below which those channels "
        "leave the integer product; each such product costs about 1 % of a small encoder's time; "
        "none: 18, and up to 26 where calibration data shows the need",
    )
    least_sqnr: float | None = option(
        20.0,
        "decibels, signal to rounding noise of the outputs, that must be kept: where calibration "
        "data, or drawn inputs, show less, the weights that lose most are stored in 8 or 16 bits; "
        "none: nothing is tried",
    )
    min_size: int = option(
        16384,
        "MatMul, Gemm and Gather weights below so many elements are not multiplied in int8, and no "
        "weight is stored in 8 bits; storage of small models begins at their 2000th part, at "
        "least a 16th of this",
    )
    block_size: int = option(
        0, "rows that share a scale in weight-only mode; 0: one scale per output channel"
    )

    def __post_init__(self) -> None:
        if self.outliers < 0:
            raise OptionError(f"outliers is {self.outliers}, expected 0 or more")
        if self.outlier_floor is not None and not self.outlier_floor < math.inf:
            raise OptionError(
                f"outlier-floor is {self.outlier_floor}, expected a number of decibels"
            )
        if self.least_sqnr is not None and not math.isfinite(self.least_sqnr):
            raise OptionError(f"least-sqnr is {self.least_sqnr}, expected a number of decibels")
        if self.min_size < 0:
            raise OptionError(f"min-size is {self.min_size}, expected 0 or more")
        if self.block_size and (self.block_size < 16 or self.block_size & (self.block_size - 1)):
            raise OptionError(
                f"block-size is {self.block_size}, expected 0 or a power of two from 16"
            )
        if self.block_size and self.mode != "weight-only":
            raise OptionError(f"block-size needs mode=weight-only, the mode is {self.mode!r}")

    def plan(self, model: ir.Model, ctx: PassContext) -> Plan:
        capabilities, skipped = ctx.target.capabilities, Skips()
        form = self._form(ctx)
        if form.name == Static.name:
            # Forms depend on the shapes of activations. Planning changes nothing.
            model = model.clone()
            infer_shapes(model)
        if self.mode != "weight-only":
            skipped.note(slow_note(ctx.target, is_auto=self.mode == "auto"))
        chosen = self._chosen(form, model, capabilities, skipped)
        static = [weight for weight, form in chosen if form.name == Static.name]
        calibrator = self._calibrator(capabilities)
        facts = self._facts(model, ctx, static, calibrator, skipped)
        clips = capabilities.int8_clips

        def outliers(floor: float) -> Mapping[ir.Value, Channels]:
            return find_outliers(static, facts, OutlierLimits(self.outliers, floor), clips)

        def plan_of(candidate: Candidate) -> Plan:
            rest = without_outliers(facts, candidate.outliers, calibrator)
            evidence = Evidence(capabilities, rest, candidate.outliers, self.bias_correction)
            made = skipped.copy()
            multiplied = decide(chosen, evidence, made)
            storage = self._storage(evidence, form, made)
            stored = storage.decide(model, {str(d.data["weight"]) for d in multiplied})
            decisions = sorted((*multiplied, *stored), key=lambda d: (d.cost, d.subject))
            made.tell(found=bool(decisions))
            return Plan(
                pass_text=pass_text(self),
                decisions=tuple(decisions),
                cost_unit="relative squared error of the output",
                gain_unit="bytes",
                notes=tuple(made.notes),
                counters=dict(made.counts),
                remedies=self._remedies(bool(static), outliers, candidate),
            )

        def applied(plan: Plan) -> ir.Model:
            copy = model.clone()
            self.apply(copy, plan, ctx)
            return copy

        floors = FLOORS_DB if self.outlier_floor is None else (self.outlier_floor,)
        candidates = [Candidate(floor, outliers(floor)) for floor in floors]
        trial = LazyTrial(model, ctx)
        plan = best_plan(candidates, plan_of, applied, trial)
        if self.least_sqnr is None or not plan.decisions:
            return plan
        finer = FinerForms(model, self._storage(Evidence(capabilities), form, Skips()), Half())
        return spare(plan, finer.next, applied, trial.get(), self.least_sqnr, ctx.progress)

    def apply(self, model: ir.Model, plan: Plan, ctx: PassContext) -> PassResult:
        return apply_plan(Desk(model, self.name, ctx.target.capabilities), plan)

    def _chosen(
        self, form: WeightForm, model: ir.Model, capabilities: Capabilities, skipped: Skips
    ) -> list[Chosen]:
        """Return what is multiplied or looked up in integers; the rest is a matter of storage."""
        limits = Limits(self.exclude, self.min_size, self.embeddings)
        sites, others = find_sites(model), Skips()
        skipped.add(ALREADY, sites.skipped.counts[ALREADY.counter])
        chosen = choose(sites, lambda w: (*limits.tables(w), form), limits, capabilities, others)
        kept, note = within_opset(chosen, lambda c: c[1], model, fate="multiplied in float32")
        skipped.note(*others.notes, note)
        return kept

    def _storage(self, evidence: Evidence, form: WeightForm, skipped: Skips) -> StoragePlanner:
        kernels = "Conv" in evidence.capabilities.int8_static_ops and form.name != Static.name
        tables = self.embeddings != "none"
        return StoragePlanner(
            Stored8(), evidence, self.exclude, self.min_size, tables, kernels, skipped
        )

    def _remedies(
        self,
        is_static: bool,
        outliers: Callable[[float], Mapping[ir.Value, Channels]],
        taken: Candidate,
    ) -> tuple[str, ...]:
        """Return options that would cost time and keep more."""
        found = []
        high = FLOORS_DB[-1]
        more = len(outliers(high)) - len(taken.outliers)
        if more > 0:
            found.append(
                f"outlier-floor={high:g}, which multiplies large channels of "
                f"{counted(more, 'more activation')} in float32"
            )
        if is_static and self.calibrator == "minmax":
            found.append("calibrator=mse, which leaves rare values out of the ranges")
        if is_static:
            found.append("mode=weight-only, which rounds no activations and is hardly faster")
        return tuple(found)

    def _facts(
        self,
        model: ir.Model,
        ctx: PassContext,
        static: Sequence[Weight],
        calibrator: Calibrator,
        skipped: Skips,
    ) -> Facts:
        observed = observed_values(static, ctx.target.capabilities.int8_clips)
        if not observed:
            return {}
        service = ctx.statistics(model)
        if service.synthetic:
            skipped.note("ranges come from synthetic data: give calibration data to trust them")
        return calibrate(observed, calibrator, service)

    def _form(self, ctx: PassContext) -> WeightForm:
        """Return what products become."""
        capabilities = ctx.target.capabilities
        mode = self.mode
        if mode == "auto":
            mode = best_mode(capabilities, has_data=ctx.calibration is not None)
        return product_form(mode, range_of(self.reduce_range, capabilities), self.block_size)

    def _calibrator(self, capabilities: Capabilities) -> Calibrator:
        symmetric = capabilities.int8_activation == "s8-symmetric"
        spec = ACTIVATION_S8 if symmetric else ACTIVATION_U8
        return Calibrator(self.calibrator, spec, peaks=self.outliers > 0)
