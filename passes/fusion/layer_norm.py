"""d / sqrt(mean(d^2) + eps) * gamma + beta, d = x - mean(x)  ->  LayerNormalization."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

import irtools.passes.fusion.algebra as algebra
from irtools.passes.fusion.base import Fused, Fusion, FusionPass, SimpleFusion

__all__ = ["FuseLayerNorm"]


class _LayerNorm(SimpleFusion):
    anchors = ("Sqrt",)

    def find(self, anchor: ir.Node) -> Fused:
        d, attributes = algebra.mean_square(anchor, self.facts)
        x, reason = algebra.uncentred(d, self.facts), "x - mean(x) is not divided by its deviation"
        normal = algebra.quotient(d, anchor.outputs[0], reason)
        scaled, gamma = algebra.scaled_by(normal, x, self.facts)
        output, beta = algebra.shifted_by(scaled, gamma, self.facts)
        algebra.require_float(x)
        return Fused("LayerNormalization", [x, gamma, *beta], output, attributes)


@dataclass(frozen=True)
class FuseLayerNorm(FusionPass):
    """Turn layer normalization over the last axis into LayerNormalization (opset 17).

        d = x - mean(x)
        d / sqrt(mean(d^2) + eps) * gamma + beta  ->  LayerNormalization(x, gamma, beta)

    with the square as Pow or Mul, the division as Div or by the reciprocal, beta or not.
    Gamma and beta must have the size of the last axis. Main graph and nested subgraphs.
    """

    name = "fuse-layer-norm"
    fusion = Fusion("layer-norm", "layer normalizations", "LayerNormalization", 17, _LayerNorm)
