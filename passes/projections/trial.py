"""Which products gain by being one: whole models, timed against each other on the target.

Three products in a loop by themselves say little: what one kernel less saves, the copies of the
Split can cost, and where a whole model spends its time, both are a few percent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any

import onnx_ir as ir

from irtools.editing import Editor, rewrite
from irtools.measure.base import Ratio
from irtools.model import Model
from irtools.passes.projections.find import MergeRule
from irtools.passmanager import PassContext

__all__ = ["Choice", "choose", "merge"]

_MOST = 3
"""Kinds of products that are tried by themselves: those with most work."""

_APART = "apart"


@dataclass(frozen=True)
class Choice:
    """Kinds of products that gain.

    Attributes:
        kinds: Those; empty where none gains.
        note: What was measured, in words.
    """

    kinds: frozenset[str]
    note: str


def merge(model: ir.Model, kinds: Collection[str], rule: str) -> int:
    """Make products of these kinds one, in place, and return how many groups became one."""
    merging = MergeRule(lambda found: found.kind in kinds)
    return rewrite(Editor(model, rule), [merging]).total


def choose(model: ir.Model, work: Mapping[str, int], ctx: PassContext, rule: str) -> Choice:
    """Time the model with all kinds merged, and with each, against the model as it is.

    Args:
        model: Stays as it is.
        work: Kind to multiplications, of all products of it.
        ctx: Gives the benchmark.
        rule: What new nodes name as their maker.
    """
    candidates = dict(_candidates(work))
    known = ctx.tables.get(
        "speed with products as one",
        partial(_measured, model, candidates, ctx, rule),
        model=Model(model).fingerprint(),
        kinds=sorted(candidates),
    )
    ratios = {name: Ratio(*ends) for name, ends in known["ratios"].items()}
    gains = {name: _gain(ratio) for name, ratio in ratios.items()}
    best = max(gains, key=gains.__getitem__)
    told = "; ".join(f"{name}: {_told(ratio)}" for name, ratio in ratios.items())
    note = f"the model with them as one, to the model as it is, at {known['shape']}: {told}"
    return Choice(candidates[best] if gains[best] > 0 else frozenset(), note)


def _measured(
    model: ir.Model, candidates: Mapping[str, frozenset[str]], ctx: PassContext, rule: str
) -> dict[str, Any]:
    models = {_APART: model}
    for name, kinds in candidates.items():
        models[name] = model.clone()
        merge(models[name], kinds, rule)
    results = ctx.measure_latency(models)
    ratios = {}
    for name in candidates:
        ratio = results[name].speedup
        assert ratio is not None
        ratios[name] = astuple(ratio)
    return {"shape": results[_APART].shape, "ratios": ratios}


def _candidates(work: Mapping[str, int]) -> Iterator[tuple[str, frozenset[str]]]:
    if len(work) > 1:
        yield "all", frozenset(work)
    for kind in sorted(work, key=lambda kind: -work[kind])[:_MOST]:
        yield kind, frozenset({kind})


def _gain(ratio: Ratio) -> float:
    """Return by how much a model is faster for certain, else 0."""
    return ratio.value - 1 if ratio.is_significant else 0.0


def _told(ratio: Ratio) -> str:
    return f"{ratio.value:.2f} times as fast [{ratio.low:.2f}, {ratio.high:.2f}]"
