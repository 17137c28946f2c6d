"""The pass `int8`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import onnx_ir as ir

from irtools.errors import OptionError
from irtools.model import infer_shapes
from irtools.passes.quantization.forms.block_plan import TABLE_BLOCKS
from irtools.passes.quantization.forms.decisions import Form
from irtools.passes.quantization.forms.quantizer import (
    Facts,
    GemmForm,
    Quantizer,
    WeightFilter,
    observed_values,
)
from irtools.passes.quantization.forms.storage import StoragePlanner
from irtools.passes.quantization.ranges.calibration import Calibrator, calibrate
from irtools.passes.quantization.ranges.outliers import (
    OutlierLimits,
    find_outliers,
    without_outliers,
)
from irtools.passes.quantization.ranges.spec import ACTIVATION_S8, ACTIVATION_U8, WeightRange
from irtools.passes.quantization.remedy import FLOORS_DB, Candidate, best_plan
from irtools.passes.quantization.sites.find import Weight, find_sites
from irtools.passes.quantization.sites.selection import left_alone, nothing_found
from irtools.passes.quantization.spared import FinerForms, spare
from irtools.passes.quantization.trial_run import LazyTrial
from irtools.passes.quantization.write.apply import apply_plan, within_opset
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
from irtools.targets import Capabilities, Target
from irtools.words import counted

__all__ = ["Int8"]

_RANGE_NOTES: dict[WeightRange, str] = {
    "full": "",
    "pairs": "weights keep less than 8 bits where sums of neighbouring products could leave 16 "
    "bits, which saturate on CPUs without VNNI",
    "7-bit": "weights keep 7 bits, so that products do not saturate on CPUs without VNNI",
}


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
    counters: ClassVar[dict[str, str]] = {
        "num-quantized-matmul": "MatMul and Gemm nodes in int8",
        "num-quantized-conv": "Conv nodes in int8",
        "num-quantized-embedding": "embedding tables in int8",
        "num-stored-conv": "kernels of Conv and ConvTranspose stored in 8 bits",
        "num-stored-recurrent": "weights of LSTM, GRU and RNN stored in 8 bits",
        "num-stored-other": "other weights stored in 8 bits",
        "num-stored-subgraph": "weights in subgraphs and functions stored in 8 bits",
        "num-stored-half": "weights stored in 16 bits, because outputs would suffer from 8",
        "num-outlier-channels": "input channels of weights that are multiplied in float32",
        "num-already-quantized": "nodes that were quantized before",
        "num-skipped-excluded": "weights left in float32 because an option excludes them",
        "num-skipped-small": "weights left in float32 because they are smaller than min-size",
        "num-skipped-embedding": "embedding tables left in float32 by option",
        "num-skipped-nonfinite": "weights left in float32 because they hold NaN or infinity",
        "num-skipped-extreme": "weights multiplied in float32 because products may overflow",
        "num-skipped-channels": "Conv weights multiplied in float32 because one range "
        "cannot serve all channels of their result",
        "num-skipped-range": "weights multiplied in float32 because an activation has no "
        "usable range",
        "num-skipped-dtype": "weights left alone because of their type",
        "num-skipped-precision": "weights left in float32 because 8 bits keep less than 30 dB",
        "num-skipped-shared": "weights left in float32 because another node reads them so",
        "num-skipped-rounded": "weights left in float32 because a QuantizeLinear of the model "
        "itself rounds them",
        "num-skipped-overridable": "weights that are inputs too, for a caller to override",
        "num-skipped-operator": "large constants that no product reads, left in float32",
    }

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
        quantizer, form = self._quantizer(ctx)
        if form == "static":
            # Forms depend on the shapes of activations. Planning changes nothing.
            model = model.clone()
            infer_shapes(model)
        chosen = self._within_opset(quantizer.select(find_sites(model)), model, quantizer)
        static = [weight for weight, form in chosen if form == "static"]
        calibrator = self._calibrator(ctx)
        facts = self._facts(model, ctx, quantizer, static, calibrator)
        candidates = [
            Candidate(floor, find_outliers(static, facts, OutlierLimits(self.outliers, floor)))
            for floor in (FLOORS_DB if self.outlier_floor is None else (self.outlier_floor,))
        ]

        def plan_of(candidate: Candidate) -> Plan:
            rest = without_outliers(facts, candidate.outliers, calibrator)
            made = replace(quantizer, skipped=quantizer.skipped.copy(), notes=list(quantizer.notes))
            multiplied = made.decide(chosen, rest, candidate.outliers)
            storage = self._storage(ctx, made)
            stored = storage.decide(model, {str(d.data["weight"]) for d in multiplied})
            decisions = sorted((*multiplied, *stored), key=lambda d: (d.cost, d.subject))
            skipped = {name: count for name, count in made.skipped.items() if count}
            notes = made.notes + storage.notes
            if not decisions:
                notes.append(nothing_found(skipped, self.counters))
            else:
                notes.extend(left_alone(skipped, self.counters))
            return Plan(
                pass_text=pass_text(self),
                decisions=tuple(decisions),
                cost_unit="relative squared error of the output",
                gain_unit="bytes",
                notes=tuple(dict.fromkeys(notes)),
                counters=skipped,
                remedies=self._remedies(static, facts, candidate),
            )

        def applied(plan: Plan) -> ir.Model:
            return self._applied(model, plan, ctx)

        trial = LazyTrial(model, ctx)
        plan = best_plan(candidates, plan_of, applied, trial)
        if self.least_sqnr is None or not plan.decisions:
            return plan
        finer = FinerForms(model, self._storage(ctx, replace(quantizer, skipped=Counter())))
        return spare(plan, finer.next, applied, trial.get(), self.least_sqnr)

    def _applied(self, model: ir.Model, plan: Plan, ctx: PassContext) -> ir.Model:
        copy = model.clone()
        self.apply(copy, plan, ctx)
        return copy

    def _storage(self, ctx: PassContext, quantizer: Quantizer) -> StoragePlanner:
        capabilities = ctx.target.capabilities
        return StoragePlanner(
            self.exclude,
            self.min_size,
            tables=self.embeddings != "none",
            integer_recurrent=capabilities.int8_recurrent,
            kernels_need_data=quantizer.selection.form != "static"
            and "Conv" in capabilities.int8_static_ops,
            skipped=quantizer.skipped,
        )

    def _remedies(
        self, static: Sequence[Weight], facts: Facts, taken: Candidate
    ) -> tuple[str, ...]:
        """Return options that would cost time and keep more."""
        found = []
        high = FLOORS_DB[-1]
        more = find_outliers(static, facts, OutlierLimits(self.outliers, high))
        if len(more) > len(taken.outliers):
            found.append(
                f"outlier-floor={high:g}, which multiplies large channels of "
                f"{counted(len(more) - len(taken.outliers), 'more activation')} in float32"
            )
        if static and self.calibrator == "minmax":
            found.append("calibrator=mse, which leaves rare values out of the ranges")
        if static:
            found.append("mode=weight-only, which rounds no activations and is hardly faster")
        return tuple(found)

    def apply(self, model: ir.Model, plan: Plan, ctx: PassContext) -> PassResult:
        return apply_plan(model, plan, self.name)

    def _within_opset(
        self, chosen: Sequence[tuple[Weight, Form]], model: ir.Model, quantizer: Quantizer
    ) -> list[tuple[Weight, Form]]:
        """Leave to storage what a model cannot express whose opset cannot be raised."""
        kept, note = within_opset(
            chosen,
            lambda pair: (pair[1], self._block_size(pair[1])),
            model,
            fate="multiplied in float32",
        )
        if note:
            quantizer.notes.append(note)
        return kept

    def _block_size(self, form: Form) -> int:
        if form == "embedding":
            return TABLE_BLOCKS.block if self.embeddings == "4" else 0
        return self.block_size if form == "weight-only" else 0

    def _facts(
        self,
        model: ir.Model,
        ctx: PassContext,
        quantizer: Quantizer,
        static: Sequence[Weight],
        calibrator: Calibrator,
    ) -> Facts:
        observed = observed_values(static)
        if not observed:
            return {}
        service = ctx.statistics(model)
        if service.synthetic:
            quantizer.notes.append(
                "ranges come from synthetic data: give calibration data to trust them"
            )
        return calibrate(observed, calibrator, service)

    def _quantizer(self, ctx: PassContext) -> tuple[Quantizer, GemmForm]:
        capabilities = ctx.target.capabilities
        form = self._form(ctx)
        weight_range = self._weight_range(capabilities)
        quantizer = Quantizer(
            WeightFilter(
                self.exclude,
                self.min_size,
                self.embeddings,
                form,
                capabilities.int8_static_ops,
                capabilities.int8_conv_to_float,
            ),
            weight_range,
            self.bias_correction,
            self.block_size,
        )
        if form != "weight-only":
            quantizer.range_note = _RANGE_NOTES[weight_range]
        if not capabilities.int8_is_fast and self.mode != "weight-only":
            quantizer.notes.append(self._slow_note(ctx.target))
        return quantizer, form

    def _slow_note(self, target: Target) -> str:
        cause = (
            f"int8 products are slower than float32 ones on {target.name} with "
            f"isa={target.isa.value}, which has no VNNI"
        )
        if self.mode == "auto":
            return f"weights are only stored in 8 bits: {cause} (mode=static computes in int8)"
        return cause

    def _weight_range(self, capabilities: Capabilities) -> WeightRange:
        match self.reduce_range:
            case "auto":
                return "pairs" if capabilities.saturates_u8s8 else "full"
            case "pairs":
                return "pairs"
            case "true":
                return "7-bit"
            case "false":
                return "full"

    def _form(self, ctx: PassContext) -> GemmForm:
        if self.mode != "auto":
            return self.mode
        capabilities = ctx.target.capabilities
        if not capabilities.int8_static_ops or not capabilities.int8_is_fast:
            return "weight-only"
        if ctx.calibration is None:
            return "dynamic" if capabilities.int8_dynamic else "weight-only"
        return "static"

    def _calibrator(self, ctx: PassContext) -> Calibrator:
        symmetric = ctx.target.capabilities.int8_activation == "s8-symmetric"
        spec = ACTIVATION_S8 if symmetric else ACTIVATION_U8
        return Calibrator(self.calibrator, spec, peaks=self.outliers > 0)
