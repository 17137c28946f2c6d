"""Carries decisions out: finds each weight again and hands it to the writer of its form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import onnx_ir as ir

from irtools.passes.quantization.decisions import WeightDecision, find_weight, use_of
from irtools.passes.quantization.dynamic import DynamicWriter
from irtools.passes.quantization.embedding import write_embedding
from irtools.passes.quantization.emitter import Emitter
from irtools.passes.quantization.sites import Weight, find_sites
from irtools.passes.quantization.static import StaticUse, StaticWriter
from irtools.passes.quantization.weight_only import write_weight_only

__all__ = ["apply_decisions"]


def apply_decisions(model: ir.Model, decisions: Iterable[WeightDecision]) -> dict[str, int]:
    """Quantize what the decisions name, and count it by statistic name.

    Raises:
        UsageError: A decision is about a weight that the model does not have.
    """
    weights = {weight.name: weight for weight in find_sites(model).weights}
    emit = Emitter(model)
    static, dynamic = StaticWriter(emit), DynamicWriter(emit)
    counts: Counter[str] = Counter()
    for decision in decisions:
        weight = find_weight(decision, weights)
        match decision.form:
            case "static":
                static.write(
                    weight, _static_uses(weight, decision), reduce_range=decision.bits == 7
                )
            case "dynamic":
                dynamic.write(weight, reduce_range=decision.bits == 7)
            case "weight-only":
                write_weight_only(emit, weight, decision.block_size)
            case "embedding":
                write_embedding(emit, weight)
        counts.update(_count(weight))
    return dict(counts)


def _static_uses(weight: Weight, decision: WeightDecision) -> tuple[StaticUse, ...]:
    return tuple(
        StaticUse(use_of(weight, d), d.activation, d.integer_bias, d.shift, d.result)
        for d in decision.uses
    )


def _count(weight: Weight) -> Counter[str]:
    names = {"matmul": "matmul", "gemm": "matmul", "conv": "conv", "gather": "embedding"}
    counts = Counter(f"num-quantized-{names[use.kind]}" for use in weight.uses)
    if counts["num-quantized-embedding"]:
        counts["num-quantized-embedding"] = 1
    return counts
