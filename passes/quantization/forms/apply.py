"""Carries a plan out: finds each weight again and has its form written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, TypeVar

import onnx_ir as ir

from irtools.errors import UnsupportedError
from irtools.model import opset_of, raise_opset, release_tensor
from irtools.passes.quantization.forms.base import Form, WeightDecision
from irtools.passes.quantization.forms.registry import read_decision
from irtools.passes.quantization.write.desk import Desk
from irtools.passmanager import PassResult, Plan
from irtools.words import counted

__all__ = ["apply_decisions", "apply_plan", "expressible", "within_opset"]

T = TypeVar("T")


def apply_plan(desk: Desk, plan: Plan) -> PassResult:
    """Carry out a plan, and raise the opset where it takes newer operators.

    Raises:
        UnsupportedError: The opset cannot be raised.
        UsageError: The plan does not fit the model.
    """
    decisions = [read_decision(decision) for decision in plan.decisions]
    notes = list(plan.notes)
    if not decisions:
        return PassResult(False, plan.counters, plan.notes, plan=plan)
    needed = max(decision.form.opset for decision in decisions)
    change = raise_opset(desk.model, needed)
    if change.reason:
        raise UnsupportedError(
            f"{desk.name} needs opset {needed}, the model has {opset_of(desk.model)} and cannot be "
            f"raised: {change.reason}; export the model again with opset {needed} or newer"
        )
    if change.after != change.before:
        notes.append(f"opset raised from {change.before} to {change.after}")
    counts = apply_decisions(desk, decisions)
    return PassResult(True, {**plan.counters, **counts}, tuple(notes), plan=plan)


def within_opset(
    chosen: Sequence[T],
    form_of: Callable[[T], Form[Any]],
    model: ir.Model,
    fate: str = "left in float32",
) -> tuple[list[T], str]:
    """Leave out what a model cannot express whose opset cannot be raised.

    Args:
        chosen: What is to be quantized.
        form_of: Its form.
        model: Stays as it is.
        fate: What becomes of the rest, for the note.

    Returns:
        What can be expressed, and a note on the rest; empty where there is none.
    """
    opsets = [form_of(item).opset for item in chosen]
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


def expressible(model: ir.Model) -> Callable[[Form[Any]], bool]:
    """Return what says whether a model can express a form, its opset raised where that takes it."""

    @cache
    def reaches(opset: int) -> bool:
        return not raise_opset(model.clone(), opset).reason

    return lambda form: reaches(form.opset)


def apply_decisions(desk: Desk, decisions: Iterable[WeightDecision]) -> dict[str, int]:
    """Quantize what decisions name, one weight after the other; count by counter.

    Forms that leave the readers of a weight as they are come first: others replace nodes.

    Raises:
        UsageError: A decision is about a weight that the model does not have.
    """
    decisions = sorted(decisions, key=lambda made: not made.form.keeps_readers)
    finders = dict.fromkeys(made.form.find for made in decisions)
    weights = {find: find(desk.model) for find in finders}
    found = [(made, made.form.match(made, weights[made.form.find])) for made in decisions]
    counts: Counter[str] = Counter()
    for made, weight in found:
        made.form.write(desk, weight, made)
        release_tensor(weight.tensor)
        counts.update(made.form.count(weight))
    return {name: count for name, count in counts.items() if count}
