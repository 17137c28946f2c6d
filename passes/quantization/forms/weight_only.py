"""8-bit weights with a scale per channel or block, expanded in front of the product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from irtools.passes.quantization.forms.base import WeightDecision
from irtools.passes.quantization.forms.weights import (
    PRODUCTS,
    Loss,
    WeightForm,
    kinds_of,
    vector_refusal,
)
from irtools.passes.quantization.ranges.evidence import Evidence
from irtools.passes.quantization.ranges.spec import PerAxis, PerBlock, weight_spec
from irtools.passes.quantization.sites.reasons import Reason
from irtools.passes.quantization.sites.uses import Weight
from irtools.passes.quantization.write.desk import Desk
from irtools.passes.quantization.write.weight_only import write_weight_only
from irtools.targets import Capabilities

__all__ = ["WeightOnly"]


@dataclass(frozen=True)
class WeightOnly(WeightForm):
    """s8 with a DequantizeLinear in front of MatMul and Gemm.

    Attributes:
        block_size: Rows of [K, N] that share a scale; 0 for one scale per column.
    """

    name: ClassVar[str] = "weight-only"
    counters: ClassVar[dict[str, str]] = {PRODUCTS: "MatMul and Gemm nodes in int8"}

    block_size: int = 0

    @property
    def opset(self) -> int:
        return 21 if self.block_size else 13  # DequantizeLinear in blocks, per axis.

    @property
    def action(self) -> str:
        what = f"block of {self.block_size}" if self.block_size else "channel"
        return f"s8 per {what}, weight only"

    def serves(self, weight: Weight) -> bool:
        return kinds_of(weight) <= {"matmul", "gemm"}

    def fits(self, weight: Weight, capabilities: Capabilities) -> Reason | None:
        return vector_refusal(weight, capabilities)

    def rounded(self, weight: Weight, evidence: Evidence) -> Loss:
        axis = weight.uses[0].axis
        granularity = PerBlock(1 - axis, self.block_size) if self.block_size else PerAxis(axis)
        return Loss.of(weight.array(), weight_spec(granularity), axis)

    def stored_bytes(self, weight: Weight) -> int:
        shape, axis = weight.tensor.shape.numpy(), weight.uses[0].axis
        blocks = -(-int(shape[1 - axis]) // self.block_size) if self.block_size else 1
        return weight.size + 4 * int(shape[axis]) * blocks

    def write(self, desk: Desk, weight: Weight, made: WeightDecision) -> None:
        write_weight_only(desk.editor, weight, self.block_size)
