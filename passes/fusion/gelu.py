"""GELU in single operators:  x * 0.5 * (1 + erf(x / sqrt(2)))  ->  Gelu(x)."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from irtools.editing import Var, equal, expect, expect_user, number
from irtools.passes.fusion.algebra import times
from irtools.passes.fusion.base import Fused, Fusion, FusionPass, SimpleFusion

__all__ = ["FuseGelu"]

_ROOT, _INVERSE = (number(n**0.5, tolerance=1e-3) for n in (2, 0.5))  # As float16 rounds them.


class _Gelu(SimpleFusion):
    anchors = ("Erf",)

    def find(self, anchor: ir.Node) -> Fused:
        argument, erf = Var("x") / _ROOT | Var("x") * _INVERSE, anchor.outputs[0]
        x = expect(argument, anchor.inputs[0], "not erf(x / sqrt(2))", named=False)["x"]
        total = expect_user(equal(erf) + 1, erf, "1 is not added to Erf", named=False)["result"]
        return Fused("Gelu", [x], times(total, x))


@dataclass(frozen=True)
class FuseGelu(FusionPass):
    """Turn GELU written with Erf into the standard operator Gelu (opset 20).

        x * 0.5 * (1 + erf(x / sqrt(2)))  ->  Gelu(x)

    in any order of the factors, with the root as divisor or as factor. The tanh form is another
    function and stays. Main graph and nested subgraphs.
    """

    name = "fuse-gelu"
    fusion = Fusion("gelu", "GELUs", "Gelu", 20, _Gelu)
