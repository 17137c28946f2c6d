"""The pass `int4`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from irtools.errors import OptionError, UnsupportedError
from irtools.measure.cpu import cpu_quota
from irtools.passes.quantization.alternatives import alternatives_of
from irtools.passes.quantization.budget import Budget, read_budget
from irtools.passes.quantization.forms.apply import apply_plan, within_opset
from irtools.passes.quantization.forms.blocks import BlockProduct, BlockTable, Tied
from irtools.passes.quantization.forms.blocks import Int4 as Four
from irtools.passes.quantization.forms.choose import REASONS, Chosen, Limits, choose, decide
from irtools.passes.quantization.forms.grids import GridProduct, Grids, GridTable, find_grids
from irtools.passes.quantization.forms.half import Half
from irtools.passes.quantization.forms.kept import Keeping, kept_notes, lost_notes
from irtools.passes.quantization.forms.registry import (
    FORM_GROUP,
    counters_of,
    explained,
    forms_of,
    read_decision,
)
from irtools.passes.quantization.forms.rows import RowTable
from irtools.passes.quantization.mixed import (
    SEARCH_EFFORT,
    weighed_mix,
)
from irtools.passes.quantization.ranges.calibration import ActivationFacts, Facts
from irtools.passes.quantization.ranges.evidence import Evidence
from irtools.passes.quantization.ranges.gptq import Hessians, by_input, remaining_squares
from irtools.passes.quantization.ranges.rounding import (
    ROUNDING_GROUP,
    rounded_in_blocks,
    roundings,
)
from irtools.passes.quantization.sites.find import REASONS as SITE_REASONS
from irtools.passes.quantization.sites.find import Sites, find_sites
from irtools.passes.quantization.sites.names import names_of
from irtools.passes.quantization.sites.reasons import (
    OPERATOR,
    OPSET,
    SHAPE,
    SUBGRAPH,
    Skips,
)
from irtools.passes.quantization.sites.stored import find_stored
from irtools.passes.quantization.times import MAX_LATENCY, start_clock
from irtools.passes.quantization.trial_run import Trials, weight_bytes
from irtools.passes.quantization.write.desk import Desk
from irtools.passmanager import (
    FOUND_WEIGHTS,
    Decision,
    Exactness,
    PassContext,
    PassResult,
    Plan,
    PlanningPass,
    option,
    pass_text,
)
from irtools.statistics import ChannelSquare, Want
from irtools.words import counted

__all__ = ["Int4"]

_FORMATS = forms_of(BlockProduct)  # type: ignore[type-abstract]
_INSTEAD = "`int8` stores the weights of Conv, recurrent layers and subgraphs too"
_STORED_BY_INT8 = (OPERATOR, SUBGRAPH, SHAPE)


@dataclass(frozen=True)
class Int4(PlanningPass):
    """Store the weights of MatMul and Gemm in 4 bits, a scale for every block of neighbours.

    For models that wait for memory: decoders, which read every weight for each token, and files
    that have to be small. Activations stay in float32 in the model; runtimes multiply the blocks
    as they are and may quantize activations per token and block on the way. Encoders that run
    many tokens at once are faster in `int8`.

    Weights that lie on a grid of blocks already, because they were read from a checkpoint of 4 to 8
    bits (GGUF, GPTQ, AWQ), are stored as that grid: codes, scales and minima are found from the
    weights alone, and nothing is rounded a second time.

    Other scales minimize the squared error of their block. No data is needed; with calibration data
    the predicted costs know how large each input channel is. With `method=gptq` codes are chosen
    on that data (Frantar et al. 2022, static groups), for K^2 numbers per product and some minutes.

    With `bits=auto` every weight gets 2, 4, 8 or 16 bits, a block and zero points of its own,
    scales in 8 bits, a kernel that rounds activations or one that does not, and codes for the
    calibration data (`method=gptq`) where there is some: a knapsack over the predicted errors,
    which know what such codes gain and are weighed by what the outputs lose where calibration data
    was given (groups of neighbours are quantized together and run). It finds the least error for a
    size, the least size for decibels of the outputs, or the least size for the error of 4 bits
    everywhere. With `max-latency` products of each size are timed on the target in every form.

    Embedding tables become 8-bit rows or 4-bit blocks. A table that is also multiplied by (tied
    input and output embeddings) stays one tensor, in blocks of 8 or 4 bits.

    Weights are quantized one after the other and in pieces, so that apart from the mapped file
    memory holds the result and little else.

    Left alone and counted: weights that hold NaN or infinity, float16 models, weights that
    another node also reads as float32, input channels that no block divides, subgraphs and
    functions, Conv and recurrent layers, models whose opset cannot be raised to 21, what is
    quantized already.
    """

    name: ClassVar[str] = "int4"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    requires: ClassVar[tuple[str, ...]] = FOUND_WEIGHTS
    stores: ClassVar[bool] = True
    counters: ClassVar[dict[str, str]] = counters_of(
        (*_FORMATS.values(), RowTable, BlockTable, Tied, GridProduct, GridTable, Half),
        (*SITE_REASONS, *REASONS, OPSET),
    )

    bits: Literal["4", "auto"] = option(
        "4",
        "4: every weight in blocks of 4 bits; auto: 2, 4, 8 or 16 bits, blocks of 32 to 128, zero "
        "points and rounded activations or not for each weight by its predicted error, embedding "
        "tables (in 4 or 8 bits) included; as small as keeps the predicted error of 4 bits, or as "
        "size, min-sqnr and max-latency say",
    )
    size: str = option(
        "",
        "what all weights of the model may take afterwards, such as 80MB; the least error within "
        "it; bits=auto only",
    )
    min_sqnr: float | None = option(
        None,
        "decibels, signal to rounding noise of the outputs on calibration data, that must be kept; "
        "the smallest weights that do; bits=auto only",
    )
    max_latency: float | None = option(None, MAX_LATENCY)
    block: Literal[32, 64, 128] = option(
        32, "neighbours along the input channels that share a scale; smaller where it must divide"
    )
    scales: Literal["float32", "s8"] = option(
        "float32",
        "how the scales of products are stored; s8: a code of 8 bits times a step for each output "
        "channel, a tenth smaller and no slower: they are widened as the model loads",
    )
    symmetric: bool = option(
        False, "no zero points: 4 bits less per block, and more error in small language models"
    )
    format: str = option("int4", explained(_FORMATS), tuple(_FORMATS), FORM_GROUP)
    method: str = option(
        "auto",
        "how weights are rounded; auto: gptq with bits=auto where calibration data is given, else "
        f"rtn; rtn: each to the nearest code; {explained(roundings())}",
        ("auto", "rtn", *roundings()),
        ROUNDING_GROUP,
    )
    embeddings: Literal["8", "4", "none"] = option(
        "8",
        "bits of embedding tables; 8: one scale per row; 4: in blocks of 32, tables below 32 * "
        "min-size elements in 8; none: float32",
    )
    grids: Literal["keep", "4", "none"] = option(
        "keep",
        "weights that lie on a grid of blocks already; keep: stored as it, in 4 or 8 bits; 4: "
        "only grids of 4 bits; none: rounded as all others",
    )
    exclude: tuple[str, ...] = option(
        (), "module, node or weight name patterns that stay in float32, such as `lm_head`"
    )
    min_size: int = option(16384, "weights of fewer elements stay in float32")

    def __post_init__(self) -> None:
        if self.min_size < 0:
            raise OptionError(f"min-size is {self.min_size}, expected 0 or more")
        form = _FORMATS.get(self.format)
        if form is None:
            raise OptionError(f"format is {self.format!r}, expected {'|'.join(_FORMATS)}")
        if self.symmetric and not form.has_zero_points:
            raise OptionError(f"{self.format} never has zero points: leave out symmetric")
        if self.scales != "float32" and self.format != "int4":
            raise OptionError(f"{self.format} has scales in float32: leave out scales=s8")
        methods = ("auto", "rtn", *roundings())
        if self.method not in methods:
            raise OptionError(f"method is {self.method!r}, expected {'|'.join(methods)}")
        if self.method not in ("auto", "rtn") and not form.is_grid:
            raise OptionError(
                f"{self.format} codes are rounded one by one: leave out method={self.method}"
            )
        if self.bits == "auto" and self.format != "int4":
            raise OptionError(f"bits=auto chooses among integers: leave out format={self.format}")
        _ = self._budget

    @property
    def _budget(self) -> Budget:
        return read_budget(self, why_fixed="with bits=4 nothing is left to choose")

    def plan(self, model: ir.Model, ctx: PassContext) -> Plan:
        capabilities, skipped = ctx.target.capabilities, Skips()
        formats = capabilities.weight_formats
        if self.format not in formats:
            raise UnsupportedError(
                f"{ctx.target.name} has no kernel for {self.format} weights, it would expand them "
                f"to float32 when it loads the model; it has {', '.join(sorted(formats)) or 'none'}"
            )
        limits = Limits(self.exclude, self.min_size, self.embeddings)
        sites = find_sites(model)
        skipped.take(sites.skipped)
        keeping = Keeping(self.grids, self.embeddings, self._grids(sites))
        forms = (
            self._wanted(),
            Tied() if self.embeddings == "4" else Tied(32, "affine", 8),
        )
        chosen = choose(
            sites,
            lambda w: (*keeping.forms(w), *limits.tables(w), *forms),
            limits,
            capabilities,
            skipped,
        )
        skipped.note(*kept_notes(chosen))
        if self.grids != "none":
            skipped.note(*lost_notes(model, sites.weights, keeping.found))
        evidence = Evidence(capabilities, self._facts(model, ctx, chosen, skipped))
        decisions = decide(chosen, evidence, skipped, workers=cpu_quota())
        if self.bits == "auto":
            decisions = self._mixed(model, chosen, decisions, evidence, skipped, ctx)
        kept, note = within_opset(decisions, lambda d: read_decision(d).form, model)
        if note:
            skipped.add(OPSET, len(decisions) - len(kept))
            skipped.note(note)
        instead = _INSTEAD if skipped.has(*_STORED_BY_INT8) else ""
        skipped.tell(found=bool(kept), instead=instead)
        return Plan(
            pass_text=pass_text(self),
            decisions=tuple(kept),
            cost_unit="relative squared error of the output",
            gain_unit="bytes",
            notes=tuple(skipped.notes),
            counters=dict(skipped.counts),
        )

    def _wanted(self) -> BlockProduct:
        form = _FORMATS[self.format].wanted(self.block, symmetric=self.symmetric)
        return dataclasses.replace(form, scales=self.scales) if isinstance(form, Four) else form

    def _rounding(self, ctx: PassContext) -> str:
        """Return how weights are rounded: what `method` names, or stands for."""
        if self.method != "auto":
            return self.method
        has_data = ctx.calibration is not None and not ctx.calibration.synthetic
        return "gptq" if self.bits == "auto" and has_data else "rtn"

    def _mixed(
        self,
        model: ir.Model,
        chosen: Sequence[Chosen],
        decisions: Sequence[Decision],
        evidence: Evidence,
        skipped: Skips,
        ctx: PassContext,
    ) -> tuple[Decision, ...]:
        """Return one decision per weight, with the bits that its error asks for."""

        def applied(plan: Plan) -> ir.Model:
            copy = model.clone()
            apply_plan(Desk(copy, self.name, ctx.target.capabilities), plan)
            return copy

        if self._rounding(ctx) == "gptq":
            products = [w for w, form in chosen if form.rounds_for_data]
            left = remaining_squares(ctx.statistics(model), products)
            evidence = dataclasses.replace(evidence, remaining=left)
        stored = {w.name: w for w in find_stored(model).weights if not w.scope}
        found = alternatives_of(model, chosen, decisions, evidence, stored, cpu_quota())
        budget = self._budget
        if self.max_latency is not None:
            usual = applied(Plan("", tuple(decisions)))
            clock = start_clock(self.max_latency, model, usual, found, ctx)
            budget = dataclasses.replace(budget, clock=clock)
        mix = weighed_mix(
            found,
            budget,
            weight_bytes(model),
            Trials(model, ctx, applied, SEARCH_EFFORT),
            (),
            ctx.progress,
        )
        skipped.note(*mix.notes)
        return tuple(sorted(mix.decisions, key=lambda d: (d.cost, d.subject)))

    def apply(self, model: ir.Model, plan: Plan, ctx: PassContext) -> PassResult:
        capabilities = ctx.target.capabilities
        method = self._rounding(ctx)
        if method == "rtn":
            return apply_plan(Desk(model, self.name, capabilities), plan)
        # The service reads the model when it is asked, and by then part of it is quantized.
        before = model.clone()
        weights = {weight.name: weight for weight in find_sites(before).weights}
        decisions = sorted(plan.decisions, key=by_input(plan.decisions, weights))
        products = [
            weights[made.weight]
            for made in map(read_decision, decisions)
            if isinstance(made.form, BlockProduct) and made.weight in weights
        ]
        service = ctx.statistics(before)
        hessians = Hessians(service, products)
        notes = plan.notes
        if service.synthetic:
            notes = (
                *notes,
                f"{method} rounded for synthetic data: give calibration data to trust it",
            )
        ordered = dataclasses.replace(plan, decisions=tuple(decisions), notes=notes)
        desk = Desk(
            model,
            self.name,
            capabilities,
            lambda weight: rounded_in_blocks(method, hessians.moments_of(weight).around_zero),
        )
        return dataclasses.replace(apply_plan(desk, ordered), plan=plan)

    def _grids(self, sites: Sites) -> Grids:
        """Return the grids that weights lie on, where they are asked for."""
        if self.grids == "none" or not _FORMATS[self.format].is_grid:
            return {}
        return find_grids(sites.weights, cpu_quota())

    def _facts(
        self, model: ir.Model, ctx: PassContext, chosen: Sequence[Chosen], skipped: Skips
    ) -> Facts:
        """Return E[x_k^2] of what is multiplied, where calibration data was given."""
        if ctx.calibration is None:
            return {}
        values = {
            use.activation for weight, _ in chosen for use in weight.uses if use.kind != "gather"
        }
        wants = {
            value: Want(value.name or "", ChannelSquare())
            for value in values
            if value.dtype == ir.DataType.FLOAT or value.dtype is None
        }
        if not wants:
            return {}
        found = ctx.statistics(model).collect(wants.values())
        squares = {value: np.asarray(found[want]) for value, want in wants.items()}
        silent = {value for value, square in squares.items() if not square.any()}
        unseen = [w for w, _ in chosen if any(use.activation in silent for use in w.uses)]
        if unseen:
            skipped.note(
                f"calibration data reaches {counted(len(unseen), 'weight')} with zeros alone or "
                f"not at all, {next(names_of(unseen[0]))!r} first: all channels count alike there"
            )
        return {
            value: ActivationFacts(None, square=square)
            for value, square in squares.items()
            if value not in silent
        }
