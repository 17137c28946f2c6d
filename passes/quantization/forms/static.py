"""8-bit weights, multiplied by activations whose ranges are fixed in advance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irtools.passes.quantization.forms.base import WeightDecision
from irtools.passes.quantization.forms.decisions import UseDecision
from irtools.passes.quantization.forms.multiplied import (
    ROUNDED_FOR_DATA,
    Multiplied,
    counted_for_data,
)
from irtools.passes.quantization.forms.weights import Loss, kinds_of, vector_refusal
from irtools.passes.quantization.ranges.arithmetic import (
    QParams,
    bias_scale_floor,
    dequantize,
    quantize_weight,
)
from irtools.passes.quantization.ranges.calibration import Facts
from irtools.passes.quantization.ranges.cost import bias_shift, matrix_view, relative_error
from irtools.passes.quantization.ranges.evidence import Evidence
from irtools.passes.quantization.ranges.outliers import channels_of, without_channels
from irtools.passes.quantization.ranges.result_ranges import ends_in_outputs, lost_channels
from irtools.passes.quantization.ranges.spec import PerAxis, weight_spec
from irtools.passes.quantization.sites.names import names_of
from irtools.passes.quantization.sites.reasons import CHANNELS, EXTREME, OPERATOR, RANGE, Reason
from irtools.passes.quantization.sites.results import has_counted_rows, result_of
from irtools.passes.quantization.sites.uses import Use, Weight
from irtools.passes.quantization.write.desk import Desk
from irtools.passes.quantization.write.static import StaticUse, StaticWriter
from irtools.targets import Capabilities
from irtools.words import counted

__all__ = ["Static", "observed_values"]

# Largest |x| * |w| * K that is let through: beyond it a float32 sum may overflow on its own.
_LARGEST_SUM = 1e37


@dataclass(frozen=True)
class Static(Multiplied):
    """s8 per channel between QuantizeLinear/DequantizeLinear pairs.

    Attributes:
        outliers: Input channels that are multiplied in float32.
        rounding: How codes are chosen for calibration data; empty: each is the nearest.
    """

    name: ClassVar[str] = "static"
    counters = Multiplied.counters | {
        "num-quantized-conv": "Conv nodes in int8",
        "num-outlier-channels": "input channels of weights that are multiplied in float32",
        **ROUNDED_FOR_DATA,
    }
    reasons: ClassVar[tuple[Reason, ...]] = (EXTREME, CHANNELS, RANGE)

    outliers: tuple[int, ...] = ()
    rounding: str = ""

    @property
    def opset(self) -> int:
        return 13  # QuantizeLinear and DequantizeLinear per axis.

    @property
    def action(self) -> str:
        count = len(self.outliers)
        rest = f", {counted(count, 'input channel')} in float32" if count else ""
        return f"{self.weights}, static activations{rest}"

    def serves(self, weight: Weight) -> bool:
        return kinds_of(weight) != {"gather"}

    def fits(self, weight: Weight, capabilities: Capabilities) -> Reason | None:
        operators = {use.node.op_type for use in _multiplying(weight)}
        if not operators <= capabilities.int8_static_ops:
            return OPERATOR
        return vector_refusal(weight, capabilities)

    def fitted(self, weight: Weight, evidence: Evidence) -> Static | Reason:
        observed = observed_values([weight], evidence.capabilities.int8_clips)
        for value in observed:
            if evidence.facts[value].qparams is None:
                reason = evidence.facts[value].reason
                return RANGE.because(name=value.name, reason=reason)
        if _may_overflow(weight, evidence.facts):
            return EXTREME.because(name=weight.name)
        return _coarse_result(weight, evidence) or replace(
            self, outliers=channels_of(weight, evidence.outliers)
        )

    def rounded(self, weight: Weight, evidence: Evidence) -> Loss:
        array, axis = weight.array(), weight.uses[0].axis
        kept = without_channels(array, axis, self.outliers)
        spec = weight_spec(PerAxis(axis), self.weight_range)
        integers, q = quantize_weight(kept, spec, _scale_floor(weight, evidence))
        return Loss(array, kept - dequantize(integers, q), axis)

    def stored_bytes(self, weight: Weight) -> int:
        # What is multiplied in float32 is stored a second time.
        rows = weight.size // weight.tensor.shape.numpy()[1 - weight.uses[0].axis]
        return super().stored_bytes(weight) + 4 * int(rows) * len(self.outliers)

    def cost(self, use: Use, loss: Loss, evidence: Evidence) -> float:
        if use.kind == "gather":
            return super().cost(use, loss, evidence)
        groups = use.node.attributes.get_int("group", 1)
        return relative_error(
            matrix_view(loss.values, loss.axis, groups),
            matrix_view(loss.error, loss.axis, groups),
            evidence.square(use.activation),
            _step(use, evidence.facts),
            self.outliers,
        )

    def use(self, use: Use, loss: Loss, evidence: Evidence) -> UseDecision:
        output = use.output.name or ""
        if use.kind == "gather":
            return UseDecision(output)
        facts, capabilities = evidence.facts[use.activation], evidence.capabilities
        shift = result = None
        if _hands_on(use, capabilities):
            result = evidence.facts[result_of(use, capabilities.int8_clips)].qparams
        if evidence.corrects_bias and use.bias is not None and facts.mean is not None:
            groups = use.node.attributes.get_int("group", 1)
            shift = bias_shift(loss.error, use.axis, facts.mean, groups).astype(np.float32)
        return UseDecision(
            output, facts.qparams, _has_integer_bias(use, capabilities), shift, result
        )

    def write(self, desk: Desk, weight: Weight, made: WeightDecision) -> None:
        readers = {use.output.name: use for use in weight.uses}
        uses = tuple(
            StaticUse(readers[d.output], d.activation, d.integer_bias, d.shift, d.result)
            for d in made.uses
        )
        desk.writer(StaticWriter).write(
            weight,
            uses,
            weight_range=self.weight_range,
            outliers=self.outliers,
            rounding=self.rounding,
        )

    def count(self, weight: Weight) -> Counter[str]:
        found = super().count(weight)
        found["num-outlier-channels"] = len(self.outliers)
        return found + counted_for_data(self.rounding)


def observed_values(
    weights: Iterable[Weight], clips: Collection[str]
) -> dict[ir.Value, int | None]:
    """Return the values whose range the static form needs, with the axis of their channels.

    None stands for a value of which the range alone is of interest, because it is read once as
    [.., K] and once as [B, I, ..].

    Args:
        clips: As `result_of` takes them.
    """
    axes: dict[ir.Value, set[int]] = {}
    for weight in weights:
        for use in _multiplying(weight):
            axes.setdefault(use.activation, set()).add(1 if use.kind == "conv" else -1)
            if use.kind == "conv":
                axes.setdefault(result_of(use, clips), set()).add(1)
    return {value: found.pop() if len(found) == 1 else None for value, found in axes.items()}


def _coarse_result(weight: Weight, evidence: Evidence) -> Reason | None:
    """Return a reason where the result of a head has channels that one range cannot serve."""
    for use in weight.uses:
        if not _hands_on(use, evidence.capabilities):
            continue
        result = result_of(use, evidence.capabilities.int8_clips)
        lost = lost_channels(evidence.facts[result])
        if lost and ends_in_outputs(result):
            channels = counted(int(weight.tensor.shape.numpy()[0]), "channel")
            return CHANNELS.because(name=next(names_of(weight)), lost=lost, channels=channels)
    return None


def _hands_on(use: Use, capabilities: Capabilities) -> bool:
    """Whether a Conv's result becomes integers: its kernel or its reader requires it.

    Where neither does, integers would be carried on through layouts that no kernel computes in.
    """
    if use.kind != "conv":
        return False
    readers = result_of(use, capabilities.int8_clips).consumers()
    takers = (n for n in readers if n.domain == "" and n.op_type in capabilities.int8_static_ops)
    return not capabilities.int8_conv_to_float or any(True for _ in takers)


def _has_integer_bias(use: Use, capabilities: Capabilities) -> bool:
    """Whether a bias becomes int32: of a Gemm or Conv, or of what a runtime makes a Gemm of."""
    if use.bias is None:
        return False
    return use.kind != "matmul" or (capabilities.int8_fuses_add and has_counted_rows(use))


def _scale_floor(weight: Weight, evidence: Evidence) -> np.ndarray | None:
    floors = [
        bias_scale_floor(use.bias.array, _step(use, evidence.facts))
        for use in _multiplying(weight)
        if use.bias is not None and _has_integer_bias(use, evidence.capabilities)
    ]
    return np.maximum.reduce(floors) if floors else None


def _multiplying(weight: Weight) -> list[Use]:
    return [use for use in weight.uses if use.kind != "gather"]


def _step(use: Use, facts: Facts) -> float:
    qparams = facts[use.activation].qparams
    assert isinstance(qparams, QParams)
    return float(qparams.scale)


def _may_overflow(weight: Weight, facts: Facts) -> bool:
    array = weight.array()
    top = float(np.abs(array).max(initial=0.0)) * (array.size / array.shape[weight.uses[0].axis])
    largest = max(_step(use, facts) for use in _multiplying(weight)) * 255
    return bool(top * largest > _LARGEST_SUM)
