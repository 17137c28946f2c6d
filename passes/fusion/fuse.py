"""The fusion driver."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from irtools.passes.fusion.attention import FuseAttention
from irtools.passes.fusion.gelu import FuseGelu
from irtools.passes.fusion.layer_norm import FuseLayerNorm
from irtools.passes.fusion.relative_position import FuseRelativePosition
from irtools.passes.fusion.rms_norm import FuseRmsNorm
from irtools.passes.fusion.rotary import FuseRotary
from irtools.passes.fusion.shapes import HoistShapes, has_attention_block
from irtools.passmanager import FOLLOWED_GRAPH, Exactness, Pass, PassContext, PassResult

__all__ = ["Fuse"]

_PARTS = (
    HoistShapes,
    FuseLayerNorm,
    FuseRmsNorm,
    FuseGelu,
    FuseRotary,
    FuseRelativePosition,
    FuseAttention,
    HoistShapes,  # Fusions ask for sizes themselves.
)


def _merged_counters() -> Mapping[str, str]:
    return {name: phrase for part in _PARTS for name, phrase in part.counters.items()}


@dataclass(frozen=True)
class Fuse(Pass):
    """Turn groups of small operators into the standard fused ones that the target runs fast.

    Runs `hoist-shapes`, `fuse-layer-norm`, `fuse-rms-norm`, `fuse-gelu`, `fuse-rotary`,
    `fuse-relative-position`, `fuse-attention` and `hoist-shapes` again, each of which exists as
    a pass of its own; shapes are hoisted only where there is attention that they can keep
    alive. Made are LayerNormalization (opset 17), RMSNormalization (23), Gelu (20),
    RotaryEmbedding (23) and Attention (23), all of them ONNX, so the model stays portable. Forms
    that one runtime alone understands are made by that target's lowering.
    Expects a model after `cleanup`.

    Made for exports of Transformers by torch's dynamo and TorchScript exporters; docs/fusion.md
    lists what fires on which. Whatever looks like one of these and did not fuse is counted and
    named, with the reason.
    """

    name: ClassVar[str] = "fuse"
    exactness: ClassVar[Exactness] = Exactness.REASSOCIATED
    requires: ClassVar[tuple[str, ...]] = FOLLOWED_GRAPH
    counters: ClassVar = _merged_counters()

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        counts: Counter[str] = Counter()
        notes: list[str] = []
        modified = False
        attends = has_attention_block(model.graph)
        for part in _PARTS:
            if part is HoistShapes and not attends:
                continue
            result = part().run(model, ctx)
            counts.update(result.counters)
            notes += result.notes
            if result.modified:
                ctx.drop_analyses(result.preserved)
                modified = True
        return PassResult(modified, dict(counts), tuple(notes))
