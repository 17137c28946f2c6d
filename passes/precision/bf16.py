"""The pass `bf16`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from irtools.errors import UnsupportedError
from irtools.passes.precision.half import HalfPass
from irtools.passes.precision.halving import halve
from irtools.passmanager import PassContext, PassResult

__all__ = ["Bf16"]


@dataclass(frozen=True)
class Bf16(HalfPass):
    """Use bfloat16 on targets that multiply in it.

    Where the target computes in float16 as well, the graph decides: safe operators move to
    bfloat16, as in `fp16`. Where bfloat16 is the only fast half, as on CPUs, the runtime chooses
    it by itself for float32 operators, so only the weights are stored in 16 bits with a Cast
    behind them: the file halves, and the speed is that of the runtime's own bfloat16 mode.
    Inputs and outputs keep their types. On other targets the pass is refused.
    """

    name: ClassVar[str] = "bf16"

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        supported = ctx.target.capabilities.compute_dtypes
        if "bfloat16" not in supported:
            raise UnsupportedError(
                f"bf16 needs a target that computes in bfloat16; {ctx.target.name} "
                f"({ctx.target.isa.value}) computes in {', '.join(sorted(supported))}: "
                "use fp16 for a smaller file, or int8"
            )
        computes = "float16" in supported
        result = halve(model, ir.DataType.BFLOAT16, self.min_size, computes=computes)
        if computes or not result.modified:
            return result
        note = f"{ctx.target.name} chooses bfloat16 arithmetic itself: this pass halves the file"
        return PassResult(True, result.counters, (*result.notes, note))
