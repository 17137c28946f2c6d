"""Decides: which weights become int8, in which form, the safest first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from irtools.passes.quantization.forms.block_plan import (
    TABLE_BLOCKS,
    EmbeddingBits,
    block_decision,
    is_small,
    refusal,
)
from irtools.passes.quantization.forms.decisions import Form, UseDecision, WeightDecision
from irtools.passes.quantization.ranges.arithmetic import (
    QParams,
    bias_scale_floor,
    dequantize,
    quantize_weight,
)
from irtools.passes.quantization.ranges.calibration import ActivationFacts
from irtools.passes.quantization.ranges.cost import bias_shift, matrix_view, relative_error
from irtools.passes.quantization.ranges.outliers import Channels, channels_of, without_channels
from irtools.passes.quantization.ranges.result_ranges import ends_in_outputs, lost_channels
from irtools.passes.quantization.ranges.spec import (
    Granularity,
    PerAxis,
    PerBlock,
    WeightRange,
    weight_spec,
)
from irtools.passes.quantization.sites.find import Sites, Use, Weight
from irtools.passes.quantization.sites.runtime_fusions import becomes_gemm, result_of
from irtools.passes.quantization.sites.selection import names_of
from irtools.passmanager import Decision
from irtools.words import counted

__all__ = ["Facts", "GemmForm", "Quantizer", "WeightFilter", "observed_values"]

Facts: TypeAlias = Mapping[ir.Value, ActivationFacts]
GemmForm: TypeAlias = Literal["static", "dynamic", "weight-only"]

# Largest |x| * |w| * K that is let through: beyond it a float32 sum may overflow on its own.
_LARGEST_SUM = 1e37


@dataclass(frozen=True)
class WeightFilter:
    """Which weights are considered.

    Attributes:
        exclude: Patterns over module, node and value names.
        min_size: Fewer elements stay in float32 (Conv weights are exempt: they are used at every
            position, so their size says nothing of their cost).
        embeddings: Bits of tables that are looked up by Gather: 8 (a scale per row), 4 (in
            blocks), or `none` to leave them alone.
        form: What MatMul and Gemm become; Conv stays in float unless it is `static`.
        static_ops: Operators that the target runs in int8 between QDQ.
        conv_to_float: The target runs a Conv in int8 whatever its result becomes.
    """

    exclude: tuple[str, ...]
    min_size: int
    embeddings: EmbeddingBits
    form: GemmForm
    static_ops: frozenset[str]
    conv_to_float: bool


@dataclass
class Quantizer:
    """Turns sites and calibration into decisions.

    Attributes:
        selection: Which weights are considered.
        weight_range: How much of 8 bits the weights of int8 products use.
        bias_correction: Correct the mean of every output channel.
        block_size: Rows that share a scale in the weight-only form; 0 for one scale per channel.
        range_note: What the report says of `weight_range`, where a weight takes it.
        skipped: Counts of what is left alone, by counter.
        notes: Sentences for the report.
    """

    selection: WeightFilter
    weight_range: WeightRange = "full"
    bias_correction: bool = True
    block_size: int = 0
    range_note: str = ""
    skipped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def select(self, sites: Sites) -> list[tuple[Weight, Form]]:
        """Return the weights whose products or lookups become int8, and as what.

        What is left is a matter of storage, and counted there.
        """
        self.skipped["num-already-quantized"] += sites.skipped.get("num-already-quantized", 0)
        forms = ((weight, self._form(weight)) for weight in sites.weights)
        return [
            (weight, form)
            for weight, form in forms
            if form is not None and not self._refusal(weight, form)
        ]

    def decide(
        self,
        chosen: Sequence[tuple[Weight, Form]],
        facts: Facts,
        outliers: Mapping[ir.Value, Channels] = MappingProxyType({}),
    ) -> tuple[Decision, ...]:
        """Make one decision per weight, the cheapest in accuracy first.

        Args:
            chosen: Weights with their forms.
            facts: What calibration says, of what is left without the outliers.
            outliers: Channels of activations that are multiplied in float32.
        """
        made = [
            self._decision(weight, form, facts, channels_of(weight, outliers))
            for weight, form in chosen
        ]
        found = [decision for decision in made if decision is not None]
        return tuple(sorted(found, key=lambda d: (d.cost, d.subject)))

    def _form(self, weight: Weight) -> Form | None:
        kinds = {use.kind for use in weight.uses}
        if kinds == {"gather"}:
            return "embedding"
        if any(_has_rank_one(use) for use in weight.uses):
            return None
        if self.selection.form == "static":
            ops = {use.node.op_type for use in weight.uses if use.kind != "gather"}
            return "static" if ops <= self.selection.static_ops else None
        # A table that is looked up and multiplied by, or a kernel, has no other int8 form.
        return self.selection.form if kinds <= {"matmul", "gemm"} else None

    def _refusal(self, weight: Weight, form: Form) -> str:
        if form == "embedding" and self.selection.embeddings == "none":
            return "num-skipped-embedding"
        return refusal(weight, self.selection.exclude, self.selection.min_size, self.notes)

    def _decision(
        self, weight: Weight, form: Form, facts: Facts, outliers: Channels
    ) -> Decision | None:
        if form == "static":
            refused = [v for v in observed_values([weight]) if facts[v].qparams is None]
            if refused:
                value = refused[0]
                self.skipped["num-skipped-range"] += 1
                self.notes.append(f"{value.name!r} has no usable range: {facts[value].reason}")
                return None
            if _may_overflow(weight, facts):
                self.skipped["num-skipped-extreme"] += 1
                self.notes.append(f"{weight.name!r} is so large that products may overflow")
                return None
            if self._is_too_coarse(weight, facts):
                return None
        return self._write_down(weight, form, facts, outliers)

    def _is_too_coarse(self, weight: Weight, facts: Facts) -> bool:
        """Whether the result of a head has channels that one range cannot serve; counted."""
        for use in weight.uses:
            if use.kind != "conv" or not self._hands_on(use):
                continue
            lost = lost_channels(facts[result_of(use)])
            if lost and ends_in_outputs(result_of(use)):
                self.skipped["num-skipped-channels"] += 1
                channels = int(weight.tensor.shape.numpy()[0])
                self.notes.append(
                    f"{next(names_of(weight))!r} is multiplied in float32: one range for its "
                    f"result would leave {lost} of {counted(channels, 'channel')} only a few "
                    "steps, because others are much larger"
                )
                return True
        return False

    def _write_down(self, weight: Weight, form: Form, facts: Facts, outliers: Channels) -> Decision:
        four_bits = form == "embedding" and self.selection.embeddings == "4"
        if four_bits and not is_small(weight, self.selection.min_size):
            found = block_decision(weight, form, TABLE_BLOCKS)
            if found is not None:
                return found
            self.notes.append(f"{weight.name!r} keeps 8 bits: no block size divides its rows")
        array, axis = weight.array(), weight.uses[0].axis
        weight_range: WeightRange = "full"
        if form in ("static", "dynamic"):
            weight_range = self.weight_range
            if self.range_note:
                self.notes.append(self.range_note)
        block_size = self.block_size if form == "weight-only" else 0
        kept = without_channels(array, axis, outliers)
        integers, q = quantize_weight(
            kept,
            weight_spec(_granularity(axis, block_size), weight_range),
            self._floor(weight, form, facts),
        )
        error = kept - dequantize(integers, q)
        uses = tuple(self._use(u, form, error, facts) for u in weight.uses)
        costs = [
            _cost(u, array, error, facts.get(u.activation), form, outliers) for u in weight.uses
        ]
        return Decision(
            subject=next(names_of(weight)),
            action=_action(form, weight_range, block_size, outliers),
            cost=float(f"{max(costs):.4g}"),
            gain=float(
                array.nbytes
                - integers.nbytes
                - q.scale.nbytes
                - array.nbytes // array.shape[1 - axis] * len(outliers)
            ),
            data=WeightDecision(
                weight.name,
                form,
                7 if weight_range == "7-bit" else 8,
                uses,
                block_size,
                outliers=outliers,
                pair_safe=weight_range == "pairs",
            ).to_data(),
        )

    def _floor(self, weight: Weight, form: Form, facts: Facts) -> np.ndarray | None:
        if form != "static":
            return None
        floors = [
            bias_scale_floor(use.bias.array, _scale(facts[use.activation]))
            for use in _multiplying(weight)
            if use.bias is not None and becomes_gemm(use)
        ]
        return np.maximum.reduce(floors) if floors else None

    def _use(self, use: Use, form: Form, error: np.ndarray, all_facts: Facts) -> UseDecision:
        output = use.output.name or ""
        if form != "static" or use.kind == "gather":
            return UseDecision(output)
        facts = all_facts[use.activation]
        shift = result = None
        if use.kind == "conv" and self._hands_on(use):
            result = all_facts[result_of(use)].qparams
        if self.bias_correction and use.bias is not None and facts.mean is not None:
            groups = use.node.attributes.get_int("group", 1)
            shift = bias_shift(error, use.axis, facts.mean, groups).astype(np.float32)
        return UseDecision(
            output, facts.qparams, use.bias is not None and becomes_gemm(use), shift, result
        )

    def _hands_on(self, use: Use) -> bool:
        """Whether a Conv's result becomes integers: its kernel or its reader requires it.

        OpenVINO 2026.4 loses 17 dB where it carries integers that no node needs through a Reshape,
        as after the patches of a ViT.
        """
        readers = result_of(use).consumers()
        takers = (n for n in readers if n.domain == "" and n.op_type in self.selection.static_ops)
        return not self.selection.conv_to_float or any(True for _ in takers)


def observed_values(weights: Iterable[Weight]) -> dict[ir.Value, int | None]:
    """Return the values whose range the static form needs, with the axis of their channels.

    None stands for a value of which the range alone is of interest, because it is read once as
    [.., K] and once as [B, I, ..].
    """
    axes: dict[ir.Value, set[int]] = {}
    for weight in weights:
        for use in _multiplying(weight):
            axes.setdefault(use.activation, set()).add(1 if use.kind == "conv" else -1)
            if use.kind == "conv":
                axes.setdefault(result_of(use), set()).add(1)
    return {value: found.pop() if len(found) == 1 else None for value, found in axes.items()}


def _has_rank_one(use: Use) -> bool:
    """Whether a vector is multiplied: x [K] @ W [K, N].

    OpenVINO 2026.4 makes [1, N] of such a product between QuantizeLinear and DequantizeLinear.
    """
    shape = use.activation.shape
    return use.kind == "matmul" and shape is not None and len(shape) == 1


def _multiplying(weight: Weight) -> list[Use]:
    return [use for use in weight.uses if use.kind != "gather"]


def _scale(facts: ActivationFacts) -> float:
    assert isinstance(facts.qparams, QParams)
    return float(facts.qparams.scale)


def _may_overflow(weight: Weight, facts: Facts) -> bool:
    array = weight.array()
    top = float(np.abs(array).max(initial=0.0)) * (array.size / array.shape[weight.uses[0].axis])
    largest = max(_scale(facts[use.activation]) for use in _multiplying(weight)) * 255
    return bool(top * largest > _LARGEST_SUM)


def _granularity(axis: int, block_size: int) -> Granularity:
    return PerBlock(1 - axis, block_size) if block_size else PerAxis(axis)


def _cost(
    use: Use,
    array: np.ndarray,
    error: np.ndarray,
    facts: ActivationFacts | None,
    form: Form,
    outliers: Channels,
) -> float:
    if use.kind == "gather":
        return relative_error(array, error, None, 0.0)
    groups = use.node.attributes.get_int("group", 1)
    step = _scale(facts) if facts is not None and form == "static" else 0.0
    return relative_error(
        matrix_view(array, use.axis, groups),
        matrix_view(error, use.axis, groups),
        facts.square if facts is not None else None,
        step,
        outliers,
    )


def _action(form: Form, weight_range: WeightRange, block_size: int, outliers: Channels) -> str:
    narrow = {"full": "", "pairs": " (pairs within 16 bits)", "7-bit": " (7 bits)"}[weight_range]
    match form:
        case "static":
            rest = f", {counted(len(outliers), 'input channel')} in float32" if outliers else ""
            return f"s8 per channel{narrow}, static activations{rest}"
        case "dynamic":
            return f"s8 per channel{narrow}, activations quantized at run time"
        case "weight-only":
            return f"s8 per {f'block of {block_size}' if block_size else 'channel'}, weight only"
        case "embedding" | "tied" | "storage":
            return "s8 per row, dequantized after the lookup"
