"""8-bit weights, multiplied by activations that are quantized at run time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from irtools.passes.quantization.forms.base import WeightDecision
from irtools.passes.quantization.forms.multiplied import Multiplied
from irtools.passes.quantization.forms.weights import vector_refusal
from irtools.passes.quantization.sites.reasons import Reason
from irtools.passes.quantization.sites.uses import Weight
from irtools.passes.quantization.write.desk import Desk
from irtools.passes.quantization.write.dynamic import DynamicWriter
from irtools.targets import Capabilities

__all__ = ["Dynamic"]


@dataclass(frozen=True)
class Dynamic(Multiplied):
    """s8 per channel, DynamicQuantizeLinear in front of the product."""

    name: ClassVar[str] = "dynamic"

    @property
    def opset(self) -> int:
        return 11  # DynamicQuantizeLinear.

    @property
    def action(self) -> str:
        return f"{self.weights}, activations quantized at run time"

    def fits(self, weight: Weight, capabilities: Capabilities) -> Reason | None:
        return vector_refusal(weight, capabilities)

    def write(self, desk: Desk, weight: Weight, made: WeightDecision) -> None:
        desk.writer(DynamicWriter).write(weight, weight_range=self.weight_range)
