"""The pass `merge-projections`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from irtools.analysis.provenance import module_name
from irtools.editing import Veto, survey, told
from irtools.passes.projections.find import Found, MergeRule
from irtools.passes.projections.trial import Choice, choose, merge
from irtools.passmanager import (
    FOUND_WEIGHTS,
    Exactness,
    Pass,
    PassContext,
    PassResult,
    option,
)
from irtools.words import counted

__all__ = ["MergeProjections"]

_LEAST_WORK = 100_000
"""Multiplications for each row of the input, below which a call costs more than the products."""


@dataclass(frozen=True)
class MergeProjections(Pass):
    """Compute several products of one input as one, where the target is faster so.

        x Wq + bq, x Wk + bk, x Wv + bv  ->  Split(x [Wq Wk Wv] + [bq bk bv])

    Query, key and value of an attention block read one input, and so do gate and up of a gated
    layer: one product reads it once, rounds it once and starts one kernel. Every column keeps its
    weights, codes, scales, zero points and bias, so every sum has the terms that it had; products
    of unlike width (grouped heads) and biases of only some are taken, in float32, 16 bits, int8
    (static, dynamic, weights alone) and in blocks of 4 or 8 bits, as MatMul, Gemm and MatMulNBits.

    What is saved, the copies of the Split may cost again. So whole models are timed on the target,
    alternating, at the first size of the benchmark: as it is, with all of these products merged,
    and with each kind by itself; what is faster for certain, by more than 1 %, stays. The note has
    the figures either way. Give it last: after `sink`, which lets Q read one row, and after `int8`
    or `int4`, whose kernels are what is timed; `prune` and plans know each product by its name only
    before it. Nothing is timed, and so nothing is merged, for another machine.

    Left apart, each with one reason: weights that another node reads too, scales of whole weights,
    products in blocks of unlike sizes. At most four become one. Works in the main graph and in
    graphs nested in it.
    """

    name: ClassVar[str] = "merge-projections"
    exactness: ClassVar[Exactness] = Exactness.REASSOCIATED
    requires: ClassVar[tuple[str, ...]] = (*FOUND_WEIGHTS, "eliminate-common-subexpressions")
    counters: ClassVar = {
        "num-merged-products": "products that are part of a larger one now",
        "num-skipped-products": "products of one input that stayed apart",
    }

    when: Literal["faster", "always"] = option(
        "faster", "faster: where whole models were timed to be faster so; always: without timing"
    )

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        rule = MergeRule()
        seen = survey(model.graph, [rule])
        groups = _groups(rule, seen.found)
        refused = ((module_name(anchor), veto) for anchor, veto in seen.refused)
        notes = list(told("did not merge products", refused))
        products = Counter({found.kind: 0 for found in groups})
        work = Counter[str]()
        for found in groups:
            products[found.kind] += len(found.columns)
            work[found.kind] += found.work
        choice = self._choose(model, work, ctx)
        notes += [choice.note] if choice.note else []
        larger = merge(model, choice.kinds, self.name) if choice.kinds else 0
        merged = sum(products[kind] for kind in choice.kinds)
        for kind in products:
            done = "became one" if kind in choice.kinds else "stayed apart"
            places = counted(sum(found.kind == kind for found in groups), "place")
            notes.append(f"products of {kind} {done} in {places}")
        counts = {
            "num-merged-products": merged,
            "num-skipped-products": products.total() - merged + len(seen.refused),
        }
        return PassResult(larger > 0, counts, tuple(notes))

    def _choose(self, model: ir.Model, work: Counter[str], ctx: PassContext) -> Choice:
        if not work or self.when == "always":
            return Choice(frozenset(work), "")
        if not ctx.target.runs_here:
            reason = f"{ctx.target.name} for {ctx.target.isa.value} cannot be timed on this machine"
            return Choice(frozenset(), f"{reason}: when=always merges without timing")
        if work.total() < _LEAST_WORK:
            return Choice(frozenset(), "products too small to be timed")
        return choose(model, work, ctx, self.name)


def _groups(rule: MergeRule, anchors: Sequence[ir.Node]) -> list[Found]:
    """Return what was found, each once: every product of a group finds it."""
    found = {match.results: match for a in anchors if not isinstance(match := rule.match(a), Veto)}
    return list(found.values())
