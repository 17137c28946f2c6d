"""The pass `int8`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from irtools.errors import OptionError
from irtools.model.inference import infer_shapes
from irtools.passes.quantization.apply import apply_plan, within_opset
from irtools.passes.quantization.block_plan import TABLE_BLOCKS
from irtools.passes.quantization.calibration import Calibrator, calibrate
from irtools.passes.quantization.decisions import Form
from irtools.passes.quantization.outliers import Limits, find_outliers, without_outliers
from irtools.passes.quantization.quantizer import (
    Facts,
    GemmForm,
    Quantizer,
    Selection,
    observed_values,
)
from irtools.passes.quantization.sites import Weight, find_sites
from irtools.passes.quantization.spec import ACTIVATION_S8, ACTIVATION_U8
from irtools.passmanager import (
    Exactness,
    PassContext,
    PassResult,
    Plan,
    PlanningPass,
    option,
    pass_text,
)
from irtools.words import counted

__all__ = ["Int8"]

_HIGH_FLOOR_DB = 26.0
"""More than four bits for the other channels: what a sentence encoder needs to keep 20 dB."""


@dataclass(frozen=True)
class Int8(PlanningPass):
    """Quantize weights to 8-bit integers, and the multiplications by them with them.

    Static: `QuantizeLinear`/`DequantizeLinear` pairs whose ranges come from calibration data; u8
    affine activations in front of MatMul, Gemm and Conv, s8 symmetric weights with one scale per
    output channel. Softmax, normalizations, activation functions and attention stay in float32.
    Input channels that are much larger than all others (a few in many transformers) are multiplied
    in float32 beside the integer product, as in LLM.int8() (Dettmers et al. 2022): one range for
    the whole tensor would leave the others no bits.
    Between Convs integers are handed on; for ONNX Runtime every Conv hands on integers, so an
    output of the model that a Conv makes has 256 steps there.
    Dynamic: activations are measured at run time; MatMul and Gemm only. Weight-only: weights are
    stored as integers, what they are multiplied in is the runtime's choice. Embedding tables are
    stored in 8 bits with one scale per row in every mode, or in 4 bits with a scale for every 32
    neighbours in a row.

    Left alone and counted: weights that hold NaN or infinity, float16 models (run `int8` before
    `fp16`), weights that somebody else reads in float32, what lies in subgraphs and functions,
    ConvTranspose and recurrent layers, batched and left-hand constants, models whose opset is
    older than the operators needed and cannot be raised, what is int8 already.
    """

    name: ClassVar[str] = "int8"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    requires: ClassVar[tuple[str, ...]] = (
        "lift-constants",
        "remove-identity",
        "fold-constants:exact=true",
    )
    statistics: ClassVar[dict[str, str]] = {
        "num-quantized-matmul": "MatMul and Gemm nodes in int8",
        "num-quantized-conv": "Conv nodes in int8",
        "num-quantized-embedding": "embedding tables in int8",
        "num-outlier-channels": "input channels of weights that are multiplied in float32",
        "num-already-quantized": "nodes that were quantized before",
        "num-skipped-excluded": "weights left in float32 because an option excludes them",
        "num-skipped-small": "weights left in float32 because they are smaller than min-size",
        "num-skipped-embedding": "embedding tables left in float32 by option",
        "num-skipped-nonfinite": "weights left in float32 because they hold NaN or infinity",
        "num-skipped-extreme": "weights left in float32 because products may overflow",
        "num-skipped-range": "weights left in float32 because an activation has no usable range",
        "num-skipped-dtype": "weights left alone because they are not float32",
        "num-skipped-shared": "weights left in float32 because another node reads them so",
        "num-skipped-operator": "constant products in a form that has no int8 kernel",
        "num-skipped-opset": "weights left in float32 because the opset is too old for int8",
        "num-skipped-subgraph": "constant products in subgraphs or functions, left alone",
    }

    mode: Literal["auto", "static", "dynamic", "weight-only"] = option(
        "auto",
        "static: fixed ranges; dynamic: ranges at run time; weight-only: float arithmetic; "
        "auto: static with calibration data, else dynamic where the target is fast at it, "
        "else static on synthetic data",
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
    reduce_range: Literal["auto", "true", "false"] = option(
        "auto", "7-bit weights; auto: where the target's products saturate at 16 bits"
    )
    outliers: int = option(
        8,
        "most input channels of a product, one in 64, that are multiplied in float32 where their "
        "range would leave the others too few bits (static only); 0: none",
    )
    outlier_floor: float = option(
        18.0,
        "decibels, signal to rounding noise of the other channels, below which those channels "
        "leave the integer product; each such product costs about 1 % of a small encoder's time",
    )
    min_size: int = option(16384, "MatMul, Gemm and Gather weights below so many elements stay")
    block_size: int = option(
        0, "rows that share a scale in weight-only mode; 0: one scale per output channel"
    )

    def __post_init__(self) -> None:
        if self.outliers < 0:
            raise OptionError(f"outliers is {self.outliers}, expected 0 or more")
        if not self.outlier_floor < math.inf:
            raise OptionError(
                f"outlier-floor is {self.outlier_floor}, expected a number of decibels"
            )
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
            # The form of a bias depends on the shape in front of it. Planning changes nothing.
            model = model.clone()
            infer_shapes(model)
        chosen = self._within_opset(quantizer.select(find_sites(model)), model, quantizer)
        static = [weight for weight, form in chosen if form == "static"]
        calibrator = self._calibrator(ctx)
        facts = self._facts(model, ctx, quantizer, static, calibrator)
        outliers = find_outliers(static, facts, Limits(self.outliers, self.outlier_floor))
        remedies = self._remedies(static, facts, len(outliers))
        facts = without_outliers(facts, outliers, calibrator)
        decisions = quantizer.decide(chosen, facts, outliers)
        return Plan(
            pass_text=pass_text(self),
            decisions=decisions,
            cost_unit="relative squared error of the output",
            gain_unit="bytes",
            notes=tuple(dict.fromkeys(quantizer.notes)),
            statistics=dict(quantizer.skipped),
            remedies=remedies,
        )

    def _remedies(self, static: Sequence[Weight], facts: Facts, apart: int) -> tuple[str, ...]:
        """Return options that would cost time and keep more."""
        found = []
        more = find_outliers(static, facts, Limits(self.outliers, _HIGH_FLOOR_DB))
        if len(more) > apart:
            found.append(
                f"outlier-floor={_HIGH_FLOOR_DB:g}, which multiplies large channels of "
                f"{counted(len(more) - apart, 'more activation')} in float32"
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
        """Leave out the forms that a model cannot express whose opset cannot be raised."""
        kept, note = within_opset(chosen, lambda pair: (pair[1], self._block_size(pair[1])), model)
        if note:
            quantizer.skipped["num-skipped-opset"] += len(chosen) - len(kept)
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
        reduce_range = {"auto": capabilities.saturates_u8s8, "true": True, "false": False}[
            self.reduce_range
        ]
        quantizer = Quantizer(
            Selection(
                self.exclude,
                self.min_size,
                self.embeddings,
                form,
                capabilities.int8_static_ops,
                capabilities.int8_conv_to_float,
            ),
            reduce_range,
            self.bias_correction,
            self.block_size,
        )
        if reduce_range and form != "weight-only":
            quantizer.notes.append("weights keep 7 bits: products may saturate on this target")
        return quantizer, form

    def _form(self, ctx: PassContext) -> GemmForm:
        if self.mode != "auto":
            return self.mode
        capabilities = ctx.target.capabilities
        if not capabilities.int8_static_ops:
            return "weight-only"
        if ctx.calibration is None and capabilities.int8_dynamic:
            return "dynamic"
        return "static"

    def _calibrator(self, ctx: PassContext) -> Calibrator:
        symmetric = ctx.target.capabilities.int8_activation == "s8-symmetric"
        spec = ACTIVATION_S8 if symmetric else ACTIVATION_U8
        return Calibrator(self.calibrator, spec, peaks=self.outliers > 0)
