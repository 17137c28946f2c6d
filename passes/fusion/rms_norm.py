"""x / sqrt(mean(x^2) + eps) * gamma  ->  RMSNormalization(x, gamma)."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

import irtools.passes.fusion.algebra as algebra
from irtools.passes.fusion.base import Fused, Fusion, FusionPass, SimpleFusion

__all__ = ["FuseRmsNorm"]


class _RmsNorm(SimpleFusion):
    anchors = ("Sqrt",)

    def find(self, anchor: ir.Node) -> Fused:
        x, attributes = algebra.mean_square(anchor, self.facts, centred=False)
        reason = "x is not divided by the root of its mean square"
        x, normal = algebra.without_casts(x, algebra.quotient(x, anchor.outputs[0], reason))
        output, gamma = algebra.scaled_by(normal, x, self.facts)
        algebra.require_float(x, gamma=gamma)
        return Fused("RMSNormalization", [x, gamma], output, {**attributes, "stash_type": 1})


@dataclass(frozen=True)
class FuseRmsNorm(FusionPass):
    """Turn RMS normalization over the last axis into RMSNormalization (opset 23).

        x / sqrt(mean(x^2) + eps) * gamma  ->  RMSNormalization(x, gamma)

    (Zhang and Sennrich 2019, as in Llama and T5) with the square as Pow or Mul and the division
    as Div or by the reciprocal; a half-precision model that normalizes in float32 keeps doing so.
    Gamma must have the size of the last axis. Main graph and nested subgraphs.
    """

    name = "fuse-rms-norm"
    fusion = Fusion("rms-norm", "RMS normalizations", "RMSNormalization", 23, _RmsNorm)
