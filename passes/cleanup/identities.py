"""Removing nodes that pass on their input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import Editor, rewrite
from irtools.passes.cleanup.algebra import IDENTITIES, no_ops
from irtools.passmanager import Exactness, Pass, PassContext, PassResult

__all__ = ["RemoveIdentity", "RemoveNoOps"]

_PRESERVED = frozenset({SymbolicShapes})


@dataclass(frozen=True)
class RemoveIdentity(Pass):
    """Remove Identity, and Dropout where it does not train.

    Works in the main graph and in nested subgraphs. Kept where both ends are visible from
    outside, because one value cannot carry two public names, and where a subgraph returns
    what it did not make.
    """

    name: ClassVar[str] = "remove-identity"
    exactness: ClassVar[Exactness] = Exactness.EXACT
    counters: ClassVar = {"num-removed-identities": "Identity and Dropout nodes removed"}

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        done = rewrite(Editor(model, self.name), IDENTITIES)
        counts = {"num-removed-identities": done.total}
        return PassResult(done.total > 0, counts, preserved=_PRESERVED)


@dataclass(frozen=True)
class RemoveNoOps(Pass):
    """Remove nodes that prove to change nothing.

    Cast and CastLike to the type a tensor has, Transpose that keeps the order, Reshape, Expand and
    Slice to the shape a tensor has, Concat, Sum, Max, Min and Mean of one tensor, and x * 1, x / 1,
    x - 0, `x and true` where the constant does not widen the shape. Not x + 0.0 or x - (-0.0),
    which turn -0.0 into 0.0. Works in the main graph and in nested subgraphs.
    """

    name: ClassVar[str] = "remove-no-ops"
    exactness: ClassVar[Exactness] = Exactness.EXACT
    counters: ClassVar = {"num-removed-no-ops": "nodes removed that changed nothing"}

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        facts = ctx.analysis(SymbolicShapes, model)
        done = rewrite(Editor(model, self.name), [rule(facts) for rule in no_ops()])
        counts = {"num-removed-no-ops": done.total}
        return PassResult(done.total > 0, counts, preserved=_PRESERVED)
