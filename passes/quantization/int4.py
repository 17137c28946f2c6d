"""The pass `int4`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from irtools.errors import OptionError, UnsupportedError
from irtools.passes.quantization.apply import apply_plan, within_opset
from irtools.passes.quantization.block_plan import BlockQuantizer, Squares
from irtools.passes.quantization.decisions import Form, WeightDecision
from irtools.passes.quantization.gptq import Hessians, by_input
from irtools.passes.quantization.selection import left_alone, nothing_found
from irtools.passes.quantization.sites import Weight, find_sites
from irtools.passes.quantization.spec import BlockSpec
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

__all__ = ["Int4"]

_INSTEAD = "`int8` stores the weights of Conv, recurrent layers and subgraphs too"


@dataclass(frozen=True)
class Int4(PlanningPass):
    """Store the weights of MatMul and Gemm in 4 bits, a scale for every block of neighbours.

    For models that wait for memory: decoders, which read every weight for each token, and files
    that have to be small. Activations stay in float32 in the model; runtimes multiply the blocks
    as they are and may quantize activations per token and block on the way. Encoders that run
    many tokens at once are faster in `int8`.

    Scales minimize the squared error of their block. No data is needed; with calibration data the
    predicted costs know how large each input channel is. With `method=gptq` codes are chosen on
    that data (Frantar et al. 2022, static groups), for K^2 numbers per product and some minutes.

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
    counters: ClassVar[dict[str, str]] = {
        "num-quantized-matmul": "MatMul and Gemm nodes with weights in blocks",
        "num-quantized-embedding": "embedding tables in 8 or 4 bits",
        "num-already-quantized": "nodes that were quantized before",
        "num-skipped-excluded": "weights left in float32 because an option excludes them",
        "num-skipped-small": "weights left in float32 because they are smaller than min-size",
        "num-skipped-embedding": "embedding tables left in float32 by option",
        "num-skipped-nonfinite": "weights left in float32 because they hold NaN or infinity",
        "num-skipped-dtype": "weights left alone because they are not float32",
        "num-skipped-shape": "weights left in float32 because no block divides their channels",
        "num-skipped-shared": "weights left in float32 because another node reads them so",
        "num-skipped-operator": "weights of Conv and of other operators, left in float32",
        "num-skipped-opset": "weights left in float32 because the opset is too old for blocks",
        "num-skipped-subgraph": "constant products in subgraphs or functions, left alone",
    }

    block: Literal[32, 64, 128] = option(
        32, "neighbours along the input channels that share a scale; smaller where it must divide"
    )
    symmetric: bool = option(
        False, "no zero points: 4 bits less per block, and more error in small language models"
    )
    format: Literal["int4", "nf4"] = option(
        "int4", "nf4: 16 quantiles of the normal distribution, where the target has a kernel"
    )
    method: Literal["rtn", "gptq"] = option(
        "rtn",
        "rtn: each weight to the nearest code; gptq: so that errors make up for each other on the "
        "calibration data",
    )
    embeddings: Literal["8", "4", "none"] = option(
        "8",
        "bits of embedding tables; 8: one scale per row; 4: in blocks of 32, tables below 32 * "
        "min-size elements in 8; none: float32",
    )
    exclude: tuple[str, ...] = option(
        (), "module, node or weight name patterns that stay in float32, such as `lm_head`"
    )
    min_size: int = option(16384, "weights of fewer elements stay in float32")

    def __post_init__(self) -> None:
        if self.min_size < 0:
            raise OptionError(f"min-size is {self.min_size}, expected 0 or more")
        if self.format == "nf4" and self.symmetric:
            raise OptionError("nf4 never has zero points: leave out symmetric")
        if self.format == "nf4" and self.method == "gptq":
            raise OptionError("nf4 codes are rounded one by one: leave out method=gptq")

    def plan(self, model: ir.Model, ctx: PassContext) -> Plan:
        formats = ctx.target.capabilities.weight_formats
        if self.format not in formats:
            raise UnsupportedError(
                f"{ctx.target.name} has no kernel for {self.format} weights, it would expand them "
                f"to float32 when it loads the model; it has {', '.join(sorted(formats)) or 'none'}"
            )
        quantizer = BlockQuantizer(self.exclude, self.min_size, self._spec, self.embeddings)
        chosen = quantizer.select(find_sites(model))
        decisions = quantizer.decide(chosen, self._squares(model, ctx, chosen))
        kept, note = within_opset(decisions, _form_of, model)
        if note:
            quantizer.skipped["num-skipped-opset"] += len(decisions) - len(kept)
            quantizer.notes.append(note)
        if kept:
            quantizer.notes.extend(left_alone(quantizer.skipped, self.counters))
        else:
            quantizer.notes.append(nothing_found(quantizer.skipped, self.counters, _INSTEAD))
        return Plan(
            pass_text=pass_text(self),
            decisions=tuple(kept),
            cost_unit="relative squared error of the output",
            gain_unit="bytes",
            notes=tuple(dict.fromkeys(quantizer.notes)),
            counters=dict(quantizer.skipped),
        )

    def apply(self, model: ir.Model, plan: Plan, ctx: PassContext) -> PassResult:
        if self.method == "rtn":
            return apply_plan(model, plan, self.name)
        # The service reads the model when it is asked, and by then part of it is quantized.
        before = model.clone()
        weights = {weight.name: weight for weight in find_sites(before).weights}
        decisions = sorted(plan.decisions, key=by_input(plan.decisions, weights))
        products = [
            weights[data.weight]
            for data in map(WeightDecision.from_data, decisions)
            if data.form == "weight-only" and data.weight in weights
        ]
        service = ctx.statistics(before)
        hessians = Hessians(service, products)
        notes = plan.notes
        if service.synthetic:
            notes = (*notes, "gptq rounded for synthetic data: give calibration data to trust it")
        ordered = dataclasses.replace(plan, decisions=tuple(decisions), notes=notes)
        result = apply_plan(model, ordered, self.name, hessians.rounding_of)
        return dataclasses.replace(result, plan=plan)

    @property
    def _spec(self) -> BlockSpec:
        if self.format == "nf4":
            return BlockSpec(4, self.block, "nf4")
        return BlockSpec(4, self.block, "symmetric" if self.symmetric else "affine")

    def _squares(
        self, model: ir.Model, ctx: PassContext, chosen: Sequence[tuple[Weight, Form]]
    ) -> Squares:
        """Return E[x_k^2] of what is multiplied, where calibration data was given."""
        if ctx.calibration is None:
            return {}
        values = {
            use.activation for weight, form in chosen if form != "embedding" for use in weight.uses
        }
        wants = {
            value: Want(value.name or "", ChannelSquare())
            for value in values
            if value.dtype == ir.DataType.FLOAT or value.dtype is None
        }
        if not wants:
            return {}
        found = ctx.statistics(model).collect(wants.values())
        return {value: np.asarray(found[want]) for value, want in wants.items()}


def _form_of(decision: Decision) -> tuple[Form, int]:
    data = WeightDecision.from_data(decision)
    return data.form, data.block_size
