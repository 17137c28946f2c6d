"""ZeroQuant (Yao et al. 2022): weights in 8 bits, and a range of its own for every token.

Ranges are measured at run time, so that no data is needed, and a token's result depends on no other
token of its batch. `TokenWise` is multiplied by the kernels of static int8, with a scale for each
output channel; `TokenBlocks` has a scale for each group of input channels, of weights and of tokens
both, where a target has kernels for it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import ClassVar

from irtools.passes.quantization.forms.base import WeightDecision
from irtools.passes.quantization.forms.multiplied import (
    ROUNDED_FOR_DATA,
    Multiplied,
    counted_for_data,
)
from irtools.passes.quantization.forms.weight_only import WeightOnly
from irtools.passes.quantization.forms.weights import Loss, vector_refusal
from irtools.passes.quantization.ranges.cost import block_noise, matrix_view, row_noise
from irtools.passes.quantization.ranges.evidence import Evidence
from irtools.passes.quantization.ranges.spec import dividing_block
from irtools.passes.quantization.sites.names import names_of
from irtools.passes.quantization.sites.reasons import OPERATOR, SHAPE, TARGET, Reason
from irtools.passes.quantization.sites.uses import Use, Weight
from irtools.passes.quantization.write.desk import Desk
from irtools.passes.quantization.write.token_wise import TokenWiseWriter
from irtools.targets import Capabilities

__all__ = ["TokenBlocks", "TokenWise"]


@dataclass(frozen=True)
class TokenWise(Multiplied):
    """s8 per channel, each token divided by its largest magnitude in front of the product.

    Attributes:
        rounding: How codes are chosen for calibration data; empty: each is the nearest.
    """

    name: ClassVar[str] = "token-wise"
    counters: ClassVar[dict[str, str]] = {**Multiplied.counters, **ROUNDED_FOR_DATA}
    reasons: ClassVar[tuple[Reason, ...]] = (OPERATOR,)

    rounding: str = ""

    @property
    def opset(self) -> int:
        return 18  # ReduceMax takes its axes as an input.

    @property
    def action(self) -> str:
        return f"{self.weights}, activations quantized token by token at run time"

    def fits(self, weight: Weight, capabilities: Capabilities) -> Reason | None:
        if "MatMul" not in capabilities.int8_static_ops:
            return OPERATOR
        return vector_refusal(weight, capabilities)

    def cost(self, use: Use, loss: Loss, evidence: Evidence) -> float:
        found, square = super().cost(use, loss, evidence), evidence.square(use.activation)
        if square is None:
            return found
        return found + row_noise(matrix_view(loss.values, loss.axis), square)

    def write(self, desk: Desk, weight: Weight, made: WeightDecision) -> None:
        desk.writer(TokenWiseWriter).write(
            weight, weight_range=self.weight_range, rounding=self.rounding
        )

    def count(self, weight: Weight) -> Counter[str]:
        return super().count(weight) + counted_for_data(self.rounding)


@dataclass(frozen=True)
class TokenBlocks(WeightOnly):
    """s8 per group of input channels, activations per token and group in the target's kernel."""

    name: ClassVar[str] = "token-blocks"
    reasons: ClassVar[tuple[Reason, ...]] = (SHAPE, TARGET)
    rounds_activations: ClassVar[bool] = True

    block_size: int = 64

    @property
    def action(self) -> str:
        return f"s8 per block of {self.block_size}, activations per token and block at run time"

    def fits(self, weight: Weight, capabilities: Capabilities) -> Reason | None:
        if not capabilities.int8_token_blocks:
            return TARGET
        if dividing_block(_channels(weight), self.block_size) is None:
            return SHAPE.because(name=next(names_of(weight)), block=self.block_size)
        return super().fits(weight, capabilities)

    def fitted(self, weight: Weight, evidence: Evidence) -> TokenBlocks:
        block = dividing_block(_channels(weight), self.block_size)
        assert block is not None
        return replace(self, block_size=block)

    def cost(self, use: Use, loss: Loss, evidence: Evidence) -> float:
        found, square = super().cost(use, loss, evidence), evidence.square(use.activation)
        if square is None:
            return found
        return found + block_noise(matrix_view(loss.values, loss.axis), square, self.block_size)


def _channels(weight: Weight) -> int:
    return int(weight.tensor.shape.numpy()[1 - weight.uses[0].axis])
