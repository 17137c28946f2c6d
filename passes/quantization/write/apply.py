"""Carries a plan out: finds each weight again and hands it to the writer of its form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import onnx_ir as ir

from irtools.editing import Editor
from irtools.errors import UnsupportedError
from irtools.model import opset_of, raise_opset, release_tensor
from irtools.passes.quantization.forms.decisions import Form, WeightDecision, find_weight, use_of
from irtools.passes.quantization.forms.storage import (
    HALF_BITS,
    StorageWriter,
    count_stored,
    find_stored_weight,
)
from irtools.passes.quantization.ranges.blocks import quantize_rows
from irtools.passes.quantization.sites.find import Weight, find_sites
from irtools.passes.quantization.sites.stored import find_stored
from irtools.passes.quantization.write.block_weights import (
    Rounding,
    write_block_lookup,
    write_block_product,
    write_tied,
)
from irtools.passes.quantization.write.dynamic import DynamicWriter
from irtools.passes.quantization.write.embedding import write_embedding
from irtools.passes.quantization.write.static import StaticUse, StaticWriter
from irtools.passes.quantization.write.weight_only import write_weight_only
from irtools.passmanager import PassResult, Plan
from irtools.words import counted

__all__ = ["apply_decisions", "apply_plan", "within_opset"]

T = TypeVar("T")

# Per-axis QuantizeLinear/DequantizeLinear, blocked DequantizeLinear, DynamicQuantizeLinear.
_PER_AXIS_OPSET = 13
_BLOCKED_OPSET = 21
_DYNAMIC_OPSET = 11


def apply_plan(
    model: ir.Model,
    plan: Plan,
    name: str,
    rounding_of: Callable[[Weight], Rounding] | None = None,
) -> PassResult:
    """Carry out a plan of the pass `name`, and raise the opset where it takes newer operators.

    Raises:
        UnsupportedError: The opset cannot be raised.
        UsageError: The plan does not fit the model.
    """
    decisions = [WeightDecision.from_data(decision) for decision in plan.decisions]
    if not decisions:
        return PassResult(False, plan.counters, plan.notes, plan=plan)
    notes = list(plan.notes)
    needed = max(_opset_for(decision.form, decision.block_size) for decision in decisions)
    change = raise_opset(model, needed)
    if change.reason:
        raise UnsupportedError(
            f"{name} needs opset {needed}, the model has {opset_of(model)} and cannot be "
            f"raised: {change.reason}; export the model again with opset {needed} or newer"
        )
    if change.after != change.before:
        notes.append(f"opset raised from {change.before} to {change.after}")
    counts = apply_decisions(model, decisions, name, rounding_of)
    return PassResult(True, {**plan.counters, **counts}, tuple(notes), plan=plan)


def within_opset(
    chosen: Sequence[T],
    form_of: Callable[[T], tuple[Form, int]],
    model: ir.Model,
    fate: str = "left in float32",
) -> tuple[list[T], str]:
    """Leave out what a model cannot express whose opset cannot be raised.

    Args:
        chosen: What is to be quantized.
        form_of: Its form and block size.
        model: Stays as it is.
        fate: What becomes of the rest, for the note.

    Returns:
        What can be expressed, and a note on the rest; empty where there is none.
    """
    opsets = [_opset_for(*form_of(item)) for item in chosen]
    needed = max(opsets, default=0)
    change = raise_opset(model.clone(), needed)
    if not change.reason:
        return list(chosen), ""
    kept = [item for item, opset in zip(chosen, opsets, strict=True) if opset <= change.before]
    return kept, (
        f"{fate}: {counted(len(chosen) - len(kept), 'weight')}; opset {needed} is "
        f"needed, the model has {change.before} and cannot be raised: {change.reason}; export "
        f"the model again with opset {needed} or newer"
    )


def _opset_for(form: Form, block_size: int) -> int:
    """Return the oldest opset that can express a form."""
    if block_size:
        return _BLOCKED_OPSET
    match form:
        case "static" | "weight-only":
            return _PER_AXIS_OPSET
        case "dynamic":
            return _DYNAMIC_OPSET
        case "embedding" | "tied" | "storage":
            # Cast and a Mul that broadcasts: opset 7, the oldest that is read.
            return 0


def apply_decisions(
    model: ir.Model,
    decisions: Iterable[WeightDecision],
    name: str,
    rounding_of: Callable[[Weight], Rounding] | None = None,
) -> dict[str, int]:
    """Quantize what the decisions name, one weight after the other; count by counter.

    Args:
        model: Changed in place.
        decisions: What is quantized, and how.
        name: Of the pass.
        rounding_of: How the 4-bit weights of products are rounded; None: each to the nearest.

    Raises:
        UsageError: A decision is about a weight that the model does not have.
    """
    decisions = tuple(decisions)
    weights = {weight.name: weight for weight in find_sites(model).weights}
    editor = Editor(model, name)
    static, dynamic = StaticWriter(editor), DynamicWriter(editor)
    counts: Counter[str] = Counter()
    counts.update(_store(model, decisions, editor))
    for decision in decisions:
        if decision.form == "storage":
            continue
        weight = find_weight(decision, weights)
        match decision.form:
            case "static":
                static.write(
                    weight,
                    _static_uses(weight, decision),
                    weight_range=decision.weight_range,
                    outliers=decision.outliers,
                )
            case "dynamic":
                dynamic.write(weight, weight_range=decision.weight_range)
            case "weight-only" if decision.bits == 4:
                rounding = quantize_rows if rounding_of is None else rounding_of(weight)
                write_block_product(editor, weight, decision.blocks, rounding)
            case "weight-only":
                write_weight_only(editor, weight, decision.block_size)
            case "embedding" if decision.block_size:
                write_block_lookup(editor, weight, decision.blocks)
            case "embedding":
                write_embedding(editor, weight)
            case "tied":
                write_tied(editor, weight, decision.blocks)
        release_tensor(weight.tensor)
        counts.update(_count(weight))
        counts["num-outlier-channels"] += len(decision.outliers)
    return {name: count for name, count in counts.items() if count}


def _store(model: ir.Model, decisions: Sequence[WeightDecision], editor: Editor) -> Counter[str]:
    """Carry out the decisions about storage.

    First of all: they leave the nodes that read a weight as they are, and others replace nodes.
    """
    counts: Counter[str] = Counter()
    chosen = [decision for decision in decisions if decision.form == "storage"]
    if not chosen:
        return counts
    weights = {weight.key: weight for weight in find_stored(model).weights}
    writer = StorageWriter(model, editor)
    for weight, decision in [(find_stored_weight(d, weights), d) for d in chosen]:
        if decision.bits == HALF_BITS:
            writer.halve(weight)
            counts["num-stored-half"] += 1
        else:
            writer.write(weight, decision.axes)
            counts[count_stored(weight)] += 1
        release_tensor(weight.tensor)
    return counts


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
