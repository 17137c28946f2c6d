"""The pass `fp16`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from irtools.passes.precision.half import HalfPass
from irtools.passes.precision.halving import halve
from irtools.passmanager import PassContext, PassResult

__all__ = ["Fp16"]


@dataclass(frozen=True)
class Fp16(HalfPass):
    """Store weights in float16 and, where the target computes in it, compute in it.

    On a target without fast float16 arithmetic every large weight is stored in 16 bits with a Cast
    behind it that the runtime folds: the file halves, the speed stays. On a target that has it,
    the safe operators compute in float16; softmax, normalizations, exponentials and everything that
    meets values beyond 65504 stay in float32. Inputs and outputs keep their types.

    Tensors with finite values beyond 65504 are named and kept, as are those so small that they
    would lose more than 1 % (of what is divided by, a single element); so are the scales of
    quantized parts. Weights in subgraphs and functions are stored in 16 bits too; arithmetic
    there stays in float32. Weights of float64 are left alone and counted.
    """

    name: ClassVar[str] = "fp16"

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        computes = "float16" in ctx.target.capabilities.compute_dtypes
        result = halve(model, ir.DataType.FLOAT16, self.min_size, computes=computes)
        if computes or not result.modified:
            return result
        note = f"{ctx.target.name} computes in float32: float16 halves the file, not the time"
        return PassResult(True, result.counters, (*result.notes, note))
