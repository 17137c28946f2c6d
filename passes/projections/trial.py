"""Which products gain by being one: whole models, timed against each other on the target.

Three products in a loop by themselves say little: what one kernel less saves, the copies of the
Split can cost, and where a whole model spends its time, both are a few percent. A decoder with a
cache spends its time on one token after the other, so that is what must be faster; its prompt must
not be slower.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any, TypeAlias

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

_Timed: TypeAlias = "Mapping[str, Ratio]"
"""Candidate to how many times as fast as the model with its products apart it is."""


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
    timed = {
        shape: {name: Ratio(*ends) for name, ends in ratios.items()}
        for shape, ratios in known.items()
    }
    gains = {name: _gain([ratios[name] for ratios in timed.values()]) for name in candidates}
    best = max(gains, key=gains.__getitem__)
    note = "the model with them as one, to the model as it is, " + ", ".join(
        f"at {shape}: {_told(ratios)}" for shape, ratios in timed.items()
    )
    return Choice(candidates[best] if gains[best] > 0 else frozenset(), note)


def _measured(
    model: ir.Model, candidates: Mapping[str, frozenset[str]], ctx: PassContext, rule: str
) -> dict[str, Any]:
    models = {_APART: model}
    for name, kinds in candidates.items():
        models[name] = model.clone()
        merge(models[name], kinds, rule)
    timed = {}
    for decoding in (True, False):
        results = ctx.measure_latency(models, decoding=decoding)
        speedups = {name: results[name].speedup for name in candidates}
        timed[results[_APART].shape] = {n: astuple(r) for n, r in speedups.items() if r is not None}
        if results[_APART].phase is None:
            break
    return timed


def _candidates(work: Mapping[str, int]) -> Iterator[tuple[str, frozenset[str]]]:
    if len(work) > 1:
        yield "all", frozenset(work)
    for kind in sorted(work, key=lambda kind: -work[kind])[:_MOST]:
        yield kind, frozenset({kind})


def _gain(ratios: Sequence[Ratio]) -> float:
    """Return by how much a model is faster for certain at the first shape, and slower at none."""
    first, *others = ratios
    if not first.is_significant or any(ratio.high < 1 for ratio in others):
        return 0.0
    return first.value - 1


def _told(timed: _Timed) -> str:
    return "; ".join(
        f"{name}: {ratio.value:.2f} times as fast [{ratio.low:.2f}, {ratio.high:.2f}]"
        for name, ratio in timed.items()
    )
