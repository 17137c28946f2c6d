"""The factors of a Gemm, which its constants can have in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import Editor, Rule, constant_of, require, rewrite
from irtools.passmanager import Exactness, Pass, PassContext, PassResult

__all__ = ["FoldGemmFactors"]

_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE)
_FACTORS = {"alpha": 1, "beta": 2}
"""The input that each factor can be multiplied into."""


@dataclass(frozen=True)
class FoldGemmFactors(Pass):
    """Multiply the factors of a Gemm into its weight and its bias.

        Gemm(x, w, b, alpha, beta)  ->  Gemm(x, alpha w, beta b)

    Passes that quantize look for a weight that a product takes as it is, and leave a scaled product
    in float32. Only constants that no other node reads, in float32 or float64; a product of numbers
    that no float holds stays. Works in the main graph and in nested subgraphs.
    """

    name: ClassVar[str] = "fold-gemm-factors"
    exactness: ClassVar[Exactness] = Exactness.REASSOCIATED
    counters: ClassVar[Mapping[str, str]] = {
        "num-folded-factors": "products whose factors are in their constants now",
        "num-skipped-factors": "products with factors that stayed",
    }

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        done = rewrite(Editor(model, self.name), [_Factors()])
        counts = {"num-folded-factors": done.total, "num-skipped-factors": len(done.refused)}
        return PassResult(done.total > 0, counts, preserved=frozenset({SymbolicShapes}))


class _Factors(Rule[Mapping[int, np.ndarray]]):
    """Gemm(x, w, b, alpha, beta)  ->  Gemm(x, alpha w, beta b)"""

    anchors = ("Gemm",)

    def find(self, anchor: ir.Node) -> Mapping[int, np.ndarray]:
        factors = {
            index: factor
            for name, index in _FACTORS.items()
            if (factor := anchor.attributes.get_float(name, 1.0)) != 1.0
            and len(anchor.inputs) > index
            and anchor.inputs[index] is not None
        }
        require(bool(factors), "it has no factor", named=False)
        return {index: _scaled(anchor, index, factor) for index, factor in factors.items()}

    def build(self, editor: Editor, anchor: ir.Node, found: Mapping[int, np.ndarray]) -> None:
        for index, array in found.items():
            old = anchor.inputs[index]
            assert old is not None
            anchor.replace_input_with(index, editor.constant(f"{old.name}_scaled", array))
            editor.drop_unread(old)
        for name in _FACTORS:
            anchor.attributes.pop(name, None)


def _scaled(node: ir.Node, index: int, factor: float) -> np.ndarray:
    """Return a constant times a factor.

    Raises:
        Veto: It is none, or it would be stored once more.
    """
    value = node.inputs[index]
    tensor = constant_of(value)
    known = value is not None and tensor is not None and tensor.dtype in _FLOATS
    require(known, "its weights are not constants in float32 or float64")
    assert value is not None and tensor is not None
    require(len(value.uses()) == 1, "its weight is shared and would be stored once more")
    array = tensor.numpy()
    with np.errstate(all="ignore"):
        scaled = (array.astype(np.float64) * factor).astype(array.dtype)
    # What overflows, or what was a number and is none in this type any more.
    lost = ~np.isfinite(scaled) | ((scaled == 0) & (array != 0) & (factor != 0))
    require(not lost.any(), "the scaled weights are not numbers of their type")
    return scaled
