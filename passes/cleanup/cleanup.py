"""The clean-up driver."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from irtools.passes.cleanup.batchnorm import FuseConvBn
from irtools.passes.cleanup.dead_code import RemoveDeadCode
from irtools.passes.cleanup.expands import DelayExpand
from irtools.passes.cleanup.folding import FoldConstants, LiftConstants
from irtools.passes.cleanup.gemm import FoldGemmFactors
from irtools.passes.cleanup.identities import RemoveIdentity, RemoveNoOps
from irtools.passes.cleanup.index_grids import FoldIndexGrids
from irtools.passes.cleanup.initializers import DeduplicateInitializers
from irtools.passes.cleanup.layout import MergeLayoutChains
from irtools.passes.cleanup.padding import FusePad
from irtools.passes.cleanup.subexpressions import EliminateCommonSubexpressions
from irtools.passmanager import Exactness, Pass, PassContext, PassResult, option
from irtools.report.counts import counts_skipped

__all__ = ["Cleanup"]

_MAX_ROUNDS = 8
_PARTS = (
    LiftConstants,
    DeduplicateInitializers,
    RemoveIdentity,
    FoldConstants,
    RemoveNoOps,
    FoldIndexGrids,
    MergeLayoutChains,
    EliminateCommonSubexpressions,
    DelayExpand,
    FusePad,
    FuseConvBn,
    FoldGemmFactors,
    RemoveDeadCode,
)


def _merged_counters() -> Mapping[str, str]:
    return {name: phrase for part in _PARTS for name, phrase in part.counters.items()}


@dataclass(frozen=True)
class Cleanup(Pass):
    """Simplify the model without changing what it computes.

    Runs `lift-constants`, `deduplicate-initializers`, `remove-identity`, `fold-constants`,
    `remove-no-ops`, `fold-index-grids`, `merge-layout-chains`, `eliminate-common-subexpressions`,
    `delay-expand`, `fuse-pad`, `fuse-conv-bn`, `fold-gemm-factors` and `remove-dead-code` in rounds
    until nothing changes. All of these exist as passes of their own. Main graph and nested
    subgraphs are cleaned; the bodies of functions stay as they are.

    The file never grows by it. Inputs, outputs and weights that a caller may override stay, used
    or not. Every rule gives
    bit-equal results, except folding of operators such as Exp and MatMul, of
    BatchNormalization and the factors of Gemm into weights, and of Pad into Conv, which `exact`
    switches off.
    """

    name: ClassVar[str] = "cleanup"
    exactness: ClassVar[Exactness] = Exactness.REASSOCIATED
    counters: ClassVar = {
        **_merged_counters(),
        "num-rounds": "rounds until nothing changed",
        "num-skipped-functions": "function bodies left as they were",
    }

    exact: bool = option(False, "only rules that keep every bit of the results")

    @property
    def promise(self) -> Exactness:
        return Exactness.EXACT if self.exact else self.exactness

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        counts: Counter[str] = Counter()
        notes: tuple[str, ...] = ()
        modified = False
        for _ in range(_MAX_ROUNDS):
            changed = self._round(model, ctx, counts)
            counts["num-rounds"] += 1
            modified |= bool(changed)
            if not changed:
                break
        else:
            notes = (f"cleanup: stopped after {_MAX_ROUNDS} rounds, still changing: {changed}",)
        counts["num-skipped-functions"] = len(model.functions)
        return PassResult(modified, dict(counts), notes)

    def _round(self, model: ir.Model, ctx: PassContext, counts: Counter[str]) -> list[str]:
        """Run every part once; returns the names of those that changed something."""
        ctx.drop_analyses()
        changed = []
        for part in self._parts():
            result = part.run(model, ctx)
            # What stays is looked at again in every round; the last one says what stayed.
            for name, number in result.counters.items():
                counts[name] = number if counts_skipped(name) else counts[name] + number
            if result.modified:
                ctx.drop_analyses(result.preserved)
                changed.append(part.name)
        return changed

    def _parts(self) -> list[Pass]:
        parts: list[Pass] = []
        for kind in _PARTS:
            if kind is FoldConstants:
                parts.append(FoldConstants(exact=self.exact))
            elif kind.exactness is Exactness.EXACT or not self.exact:
                parts.append(kind())
        return parts
