"""The pass `int8`."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import onnx_ir as ir

from irtools.errors import OptionError
from irtools.measure.cpu import cpu_quota
from irtools.model import infer_shapes
from irtools.passes.quantization.alternatives import alternatives_of
from irtools.passes.quantization.budget import Budget, read_budget
from irtools.passes.quantization.by_token import (
    RATIO,
    SCALED_RATIO,
    by_token,
    with_token_ranges,
)
from irtools.passes.quantization.for_data import moments_for, rounded_for_data
from irtools.passes.quantization.forms.apply import apply_plan
from irtools.passes.quantization.forms.blocks import BlockTable, Int4
from irtools.passes.quantization.forms.choose import Limits
from irtools.passes.quantization.forms.dynamic import Dynamic
from irtools.passes.quantization.forms.half import Half
from irtools.passes.quantization.forms.modes import (
    best_mode,
    kernel_note,
    product_form,
    range_of,
    slow_note,
)
from irtools.passes.quantization.forms.registry import counters_of, explained, read_decision
from irtools.passes.quantization.forms.rows import RowTable
from irtools.passes.quantization.forms.static import Static
from irtools.passes.quantization.forms.storage import REASONS as STORAGE_REASONS
from irtools.passes.quantization.forms.stored8 import Stored8
from irtools.passes.quantization.forms.token_wise import TokenBlocks, TokenWise
from irtools.passes.quantization.forms.weight_only import WeightOnly
from irtools.passes.quantization.forms.weights import WeightForm
from irtools.passes.quantization.held_out import hold_out
from irtools.passes.quantization.mixed import (
    SEARCH_EFFORT,
    weighed_mix,
)
from irtools.passes.quantization.prospect import Prospect, Wishes
from irtools.passes.quantization.ranges.evidence import Evidence
from irtools.passes.quantization.ranges.rounding import ROUNDING_GROUP, roundings
from irtools.passes.quantization.remedy import FLOORS_DB, NEED_DB, best_plan
from irtools.passes.quantization.rounded_results import keep_results
from irtools.passes.quantization.sites.find import find_sites
from irtools.passes.quantization.sites.reasons import ALREADY
from irtools.passes.quantization.sites.stored import find_stored
from irtools.passes.quantization.smoothed import Smoothing, scales_in
from irtools.passes.quantization.spared import FinerForms, spare
from irtools.passes.quantization.times import MAX_LATENCY, start_clock
from irtools.passes.quantization.trial_run import Trials, weight_bytes
from irtools.passes.quantization.write.desk import Desk
from irtools.passes.quantization.write.widened import can_widen, widen
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
from irtools.scaling import MOVED, ScaledSite, apply_scales
from irtools.statistics import CALIBRATOR_GROUP, calibrators

__all__ = ["Int8"]

_CALIBRATORS = calibrators()
_MOST_TOKEN_BLOCK = 256
_MORE_KEPT = (
    "least-sqnr={:g}, which stores the weights that lose most in 16 bits or leaves them in float32"
)
_WIDENED = (
    "float16 becomes float32, in which {} computes it in any case: int8 kernels take weights of "
    "float32 alone; inputs and outputs keep their types"
)
_NO_RANGES = "smooth=true moves no scale: only static products have ranges that gain"


@dataclass(frozen=True)
class Int8(PlanningPass):
    """Quantize weights to 8-bit integers, and the multiplications by them with them.

    Static: `QuantizeLinear`/`DequantizeLinear` pairs whose ranges come from calibration data; u8
    affine activations in front of MatMul, Gemm and Conv, s8 symmetric weights with one scale per
    output channel. Softmax, normalizations, activation functions and attention stay in float32.
    Scales of channels are moved first where that loses less, as by `smooth`: into normalizations,
    the values of attention and whatever makes the channels, at no cost, and with a Mul where the
    outputs keep less than 26 dB; a quarter of the calibration samples, at most 16, show whether
    they gain, and nothing else is made of these.
    Input channels that are much larger than all others (a few in many transformers) are multiplied
    in float32 next to the integer product, as in LLM.int8() (Dettmers et al. 2022): one range for
    the whole tensor would leave the others no bits. How many, calibration data decides: where the
    quantized model keeps less than 26 dB of the original's outputs on these, more channels leave
    the integer product, of at most one product in six, or of as many as 20 dB take.
    Where less than 26 dB are kept even so, weights of small models are rounded so that their errors
    make up for each other on the calibration data (GPTQ, Frantar et al. 2022); up to 30 dB where
    1 dB more is kept.
    Between Convs integers are passed on; for ONNX Runtime every Conv outputs integers, so an
    output of the model that a Conv makes has 256 steps there. A Conv that is at most 2 % of the
    work and that no other Conv reads, such as the patches of a vision transformer, is multiplied in
    float32 where that keeps 0.5 dB more of outputs below 26 dB, or 1 dB more below 30.
    Dynamic: activations are measured at run time; MatMul and Gemm only. Token-wise: the same with a
    range for every token instead of one for all, as in ZeroQuant (Yao et al. 2022): each is divided
    by its largest magnitude and multiplied in the kernels of static int8, so that no data is needed
    and no result depends on other tokens of a batch. With `block-size` tokens and weights have a
    scale for each group of input channels, where the target has such kernels. Weight-only: weights
    are stored as integers, what they are multiplied in is the runtime's choice. Embedding tables
    are stored in 8 bits with one scale per row in every mode, or in 4 bits with a scale for every
    32 neighbours in a row.

    Every other weight is stored in 8 bits and expanded when the runtime loads the model, so that
    the file is close to a quarter and the speed that of the original: Conv without ranges,
    ConvTranspose, LSTM, GRU and RNN (where the target has a kernel for it, LSTM is multiplied in
    integers), batched and left-hand constants, Einsum, small products, and whatever is in
    branches of If, bodies of Loop and Scan, and functions.

    A model of float16 is widened to float32 first where the target computes in nothing else and its
    int8 kernels then take a weight; its inputs and outputs keep their types.

    What comes of it is run on some of the calibration data, or on drawn inputs where none was given
    (not with `--no-check`, nor above 2 GiB of weights or a quarter of the memory). Where less than
    20 dB of the outputs are kept, static products get a range for each token, as few as it takes: a
    few tokens of decoders, such as the first, are hundreds of times larger than the others in front
    of `down`. Where that is so, they are tried together with moved scales, too, and with scales
    chosen for such ranges. If it is not enough, the weights that lose most are stored in 8 bits
    instead of multiplied, or in 16 bits, until enough is kept.

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
        (
            Static,
            Dynamic,
            TokenWise,
            TokenBlocks,
            WeightOnly,
            RowTable,
            BlockTable,
            Int4,
            Stored8,
            Half,
        ),
        (ALREADY, *STORAGE_REASONS),
    ) | {**MOVED, "num-widened": "weights of float16 in float32, which int8 kernels take"}

    mode: Literal["auto", "static", "dynamic", "token-wise", "weight-only"] = option(
        "auto",
        "static: fixed ranges, of synthetic data where no other is given; dynamic: ranges at run "
        "time, one for all tokens; token-wise: one for each token (ZeroQuant), with block-size one "
        "for each token and group of input channels; weight-only: 8 bits in the file; auto: static "
        "with calibration data, else dynamic where the target is fast at it, else weight-only, as "
        "where int8 products are slower than float32; what has no such form is stored",
    )
    calibrator: str = option(
        "minmax",
        f"what the range of an activation covers (static only); {explained(_CALIBRATORS)}",
        tuple(_CALIBRATORS),
        CALIBRATOR_GROUP,
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
    method: str = option(
        "auto",
        "how weights of products are rounded in mode=static; auto: gptq where the outputs keep "
        "less than 26 dB and gain, or less than 30 and gain 1 dB, in a large model those of narrow "
        "products alone; rtn: each to the "
        f"nearest; {explained(roundings())}",
        ("auto", "rtn", *roundings()),
        ROUNDING_GROUP,
    )
    smooth: Literal["auto", "true", "false"] = option(
        "auto",
        "scales of channels moved before anything is rounded (docs/smoothing.md; static only); "
        "auto: where calibration data shows that the outputs gain, with Mul nodes only below 26 "
        "dB; true: all that gain by prediction",
    )
    bits: Literal["8", "auto"] = option(
        "8",
        "8: every weight; auto: 4 or 2 bits in blocks for those that lose least by it, products in "
        "float32 then, and 16 bits for those that lose most, as size, min-sqnr and max-latency say",
    )
    size: str = option(
        "",
        "what all weights of the model may take afterwards, such as 4MB; the least error within "
        "it; bits=auto only",
    )
    min_sqnr: float | None = option(
        None,
        "decibels, signal to rounding noise of the outputs on calibration data, that must be kept; "
        "the smallest weights that do; bits=auto only",
    )
    max_latency: float | None = option(None, MAX_LATENCY)
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
        0,
        "input channels that share a scale in the modes token-wise and weight-only; 0: one scale "
        "per output channel",
    )

    def __post_init__(self) -> None:
        if self.calibrator not in _CALIBRATORS:
            raise OptionError(
                f"calibrator is {self.calibrator!r}, expected {'|'.join(_CALIBRATORS)}"
            )
        if self.method not in ("auto", "rtn", *roundings()):
            raise OptionError(
                f"method is {self.method!r}, expected auto|rtn|{'|'.join(roundings())}"
            )
        if self.outliers < 0:
            raise OptionError(f"outliers is {self.outliers}, expected 0 or more")
        if self.outlier_floor is not None and not self.outlier_floor < math.inf:
            raise OptionError(
                f"outlier-floor is {self.outlier_floor}, expected a number of decibels"
            )
        if self.least_sqnr is not None and not math.isfinite(self.least_sqnr):
            raise OptionError(f"least-sqnr is {self.least_sqnr}, expected a number of decibels")
        _ = self._budget
        if self.min_size < 0:
            raise OptionError(f"min-size is {self.min_size}, expected 0 or more")
        if self.block_size and (self.block_size < 16 or self.block_size & (self.block_size - 1)):
            raise OptionError(
                f"block-size is {self.block_size}, expected 0 or a power of two from 16"
            )
        if self.block_size and self.mode not in ("token-wise", "weight-only"):
            raise OptionError(
                f"block-size needs mode=token-wise or weight-only, the mode is {self.mode!r}"
            )
        if self.mode == "token-wise" and self.block_size > _MOST_TOKEN_BLOCK:
            raise OptionError(
                f"block-size is {self.block_size}, kernels of mode=token-wise take at most "
                f"{_MOST_TOKEN_BLOCK}"
            )

    @property
    def _budget(self) -> Budget:
        return read_budget(
            self,
            why_fixed="it says which weights get other bits",
            needs_one="bits=auto needs size=, min-sqnr= or max-latency=, which say how far to go",
        )

    def plan(self, model: ir.Model, ctx: PassContext) -> Plan:
        halves = "float16" in ctx.target.capabilities.compute_dtypes
        if not halves and self._form(ctx).rounds_activations and can_widen(model):
            wide = model.clone()
            widen(wide, self.name)
            plan = self._plan(wide, ctx)
            if any(read_decision(d).form.rounds_activations for d in scales_in(plan)[1].decisions):
                note = _WIDENED.format(ctx.target.name)
                return replace(plan, notes=(note, *plan.notes))
        return self._plan(model, ctx)

    def _plan(self, model: ir.Model, ctx: PassContext) -> Plan:
        wishes = self._wishes(ctx)
        if wishes.is_static:
            ctx = hold_out(ctx)
            # Forms depend on the shapes of activations. Planning changes nothing.
            model = model.clone()
            infer_shapes(model)

        def applied(plan: Plan) -> ir.Model:
            copy = model.clone()
            self.apply(copy, plan, ctx)
            return copy

        fitted = wishes.is_static and ctx.calibration is not None and ctx.unseen is None
        trials = Trials(model, ctx, applied, fitted=fitted)
        floors = FLOORS_DB if self.outlier_floor is None else (self.outlier_floor,)

        def plan_of(prospect: Prospect) -> Plan:
            candidates = [prospect.candidate(floor) for floor in floors]
            first = prospect.plan(candidates[0])
            found = self._by_token(first, prospect, trials, self.least_sqnr)
            return best_plan(candidates, prospect.plan, trials) if found is first else found

        def with_tokens(prospect: Prospect) -> Plan:
            first = prospect.plan(prospect.candidate(floors[0]))
            return self._by_token(first, prospect, trials, NEED_DB, SCALED_RATIO)

        def for_tokens(prospect: Prospect, results: Collection[str]) -> Plan:
            first = prospect.plan(prospect.candidate(floors[0]))
            form, evidence = self._for_tokens(prospect)
            return with_token_ranges(first, prospect.static, form, evidence, results)

        prospect = Prospect(model, wishes, ctx)
        if wishes.is_static and wishes.scales:
            smoothing = Smoothing(
                self.smooth == "true",
                floors[0],
                trials,
                lambda scaled, moved: Prospect(scaled, wishes, ctx, moved),
                plan_of,
                with_tokens,
                for_tokens,
                self.name,
            )
            prospect, plan = smoothing.best(prospect)
        else:
            plan = plan_of(prospect)
            if self.smooth == "true":
                plan = replace(plan, notes=(*plan.notes, _NO_RANGES))
        finer = FinerForms(prospect.model, prospect.storage, Half())
        if wishes.is_static and self.bits != "auto":
            plan = keep_results(plan, prospect.model, prospect.static, finer.next, trials)
        if self.bits == "auto":
            plan = self._mixed(plan, prospect, ctx, applied)
        elif self.least_sqnr is not None and plan.decisions:
            plan = spare(plan, finer.next, applied, trials.run, self.least_sqnr, ctx.progress)
            if trials.run is not None and not plan.remedies:
                plan = replace(plan, remedies=(_MORE_KEPT.format(self.least_sqnr + 10),))
        if self.method == "rtn":
            return plan
        return rounded_for_data(plan, prospect.static, trials, self.method)

    def _by_token(
        self,
        plan: Plan,
        prospect: Prospect,
        trials: Trials,
        enough_db: float | None,
        ratio: float = RATIO,
    ) -> Plan:
        """Return the plan with a range for each token where fixed ones keep too little."""
        if enough_db is None or self.bits == "auto" or not prospect.static:
            return plan
        form, evidence = self._for_tokens(prospect)
        return by_token(
            plan, prospect.model, prospect.static, form, evidence, trials, enough_db, ratio
        )

    def _for_tokens(self, prospect: Prospect) -> tuple[TokenWise, Evidence]:
        """Return what products with a range for each token become, and what is known of them."""
        form = TokenWise(range_of(self.reduce_range, prospect.capabilities))
        return form, Evidence(prospect.capabilities, prospect.facts)

    def _mixed(
        self,
        plan: Plan,
        prospect: Prospect,
        ctx: PassContext,
        applied: Callable[[Plan], ir.Model],
    ) -> Plan:
        """Return the plan with other bits for the weights that lose least, and most, by them."""
        scales, weights = scales_in(plan)
        sites = {w.name: w for w in find_sites(prospect.model).weights}
        made = {d.subject: read_decision(d) for d in weights.decisions}
        chosen = [
            (sites[each.weight], each.form)
            for each in made.values()
            if not each.scope and each.weight in sites and isinstance(each.form, WeightForm)
        ]
        names = {weight.name for weight, _ in chosen}
        fixed = tuple(d for d in weights.decisions if made[d.subject].weight not in names)
        evidence = Evidence(ctx.target.capabilities, prospect.facts)
        stored = {w.name: w for w in find_stored(prospect.model).weights if not w.scope}
        found = alternatives_of(
            prospect.model, chosen, weights.decisions, evidence, stored, cpu_quota()
        )
        clock = None
        if self.max_latency is not None:
            usual = applied(plan)
            clock = start_clock(self.max_latency, prospect.model, usual, found, ctx)
        mix = weighed_mix(
            found,
            replace(self._budget, clock=clock),
            weight_bytes(prospect.model) - int(sum(d.gain for d in fixed)),
            Trials(prospect.model, ctx, applied, SEARCH_EFFORT),
            (*scales, *fixed),
            ctx.progress,
        )
        ordered = sorted((*mix.decisions, *fixed), key=lambda d: (d.cost, d.subject))
        return replace(plan, decisions=(*scales, *ordered), notes=(*plan.notes, *mix.notes))

    def apply(self, model: ir.Model, plan: Plan, ctx: PassContext) -> PassResult:
        scales, weights = scales_in(plan)
        moved = [ScaledSite.from_data(decision.data) for decision in scales]
        widened = widen(model, self.name) if _multiplies_halves(model, weights) else 0
        counts = apply_scales(model, moved, self.name)
        moments_of, note = moments_for(model, weights, hold_out(ctx))
        if note:
            weights = replace(weights, notes=(*weights.notes, note))
        desk = Desk(model, self.name, ctx.target.capabilities, moments_of=moments_of)
        result = apply_plan(desk, weights)
        return replace(
            result,
            modified=result.modified or bool(moved),
            counters={**result.counters, **counts, **({"num-widened": widened} if widened else {})},
            plan=plan,
        )

    def _wishes(self, ctx: PassContext) -> Wishes:
        form = self._form(ctx)
        slow = slow_note(ctx.target, is_auto=self.mode == "auto")
        return Wishes(
            pass_text(self),
            form,
            Limits(self.exclude, self.min_size, self.embeddings),
            self.calibrator,
            self.outliers,
            bias_correction=self.bias_correction,
            scales=self.smooth != "false",
            note=kernel_note(ctx.target, form) or ("" if self.mode == "weight-only" else slow),
        )

    def _form(self, ctx: PassContext) -> WeightForm:
        """Return what products become."""
        capabilities = ctx.target.capabilities
        mode = self.mode
        if mode == "auto":
            mode = best_mode(capabilities, has_data=ctx.calibration is not None)
        return product_form(mode, range_of(self.reduce_range, capabilities), self.block_size)


def _multiplies_halves(model: ir.Model, plan: Plan) -> bool:
    """Whether a plan was made on a model of float16 that had been widened."""
    initializers = model.graph.initializers
    halves = {name for name, v in initializers.items() if v.dtype == ir.DataType.FLOAT16}
    made = (read_decision(d) for d in plan.decisions if d.data["weight"] in halves)
    return bool(halves) and any(one.form.rounds_activations and not one.scope for one in made)
