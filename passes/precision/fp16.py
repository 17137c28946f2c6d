"""The pass `fp16`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from irtools.errors import OptionError
from irtools.passes.precision.halving import halve
from irtools.passmanager import Exactness, Pass, PassContext, PassResult, option

__all__ = ["Fp16"]


@dataclass(frozen=True)
class Fp16(Pass):
    """Store weights in float16 and, where the target computes in it, compute in it.

    On a target without fast float16 arithmetic every large weight is stored in 16 bits with a Cast
    behind it that the runtime folds: the file halves, the speed stays. On a target that has it,
    the safe operators compute in float16; softmax, normalizations, exponentials and everything that
    meets values beyond 65504 stay in float32. Inputs and outputs keep their types.

    Tensors with finite values beyond 65504 are named and kept; so are the scales of quantized
    parts. Subgraphs and functions are left alone.
    """

    name: ClassVar[str] = "fp16"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    statistics: ClassVar[dict[str, str]] = {
        "num-stored": "weights stored in 16 bits",
        "num-computed": "nodes that compute in 16 bits",
        "num-skipped-float32": "nodes that stay in float32",
        "num-skipped-large": "tensors kept in float32 because 16 bits cannot hold their values",
    }

    min_size: int = option(1024, "weights below so many elements are stored as they are")

    def __post_init__(self) -> None:
        if self.min_size < 1:
            raise OptionError(f"min-size is {self.min_size}, expected 1 or more")

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        computes = "float16" in ctx.target.capabilities.compute_dtypes
        result = halve(model, ir.DataType.FLOAT16, self.min_size, computes=computes)
        if computes or not result.modified:
            return result
        note = f"{ctx.target.name} computes in float32: float16 halves the file, not the time"
        return PassResult(True, result.statistics, (*result.notes, note))
