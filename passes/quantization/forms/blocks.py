"""Weights in blocks: a scale for every few neighbours along the input channels."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from irtools.model import ask_for_exact_activations
from irtools.passes.quantization.forms.base import WeightDecision
from irtools.passes.quantization.forms.weights import (
    LOOKUPS,
    PRODUCTS,
    Loss,
    WeightForm,
    even_rows,
    kinds_of,
)
from irtools.passes.quantization.ranges.blocks import dequantize_rows, quantize_rows
from irtools.passes.quantization.ranges.cost import block_noise, matrix_view
from irtools.passes.quantization.ranges.evidence import Evidence
from irtools.passes.quantization.ranges.spec import BlockSpec, Scales, Scheme
from irtools.passes.quantization.sites.names import names_of
from irtools.passes.quantization.sites.reasons import ROWS, SHAPE, TARGET, Reason
from irtools.passes.quantization.sites.uses import Use, Weight
from irtools.passes.quantization.write.block_weights import (
    write_block_lookup,
    write_block_product,
    write_tied,
)
from irtools.passes.quantization.write.desk import Desk
from irtools.targets import Capabilities

__all__ = ["BlockProduct", "BlockTable", "Int4", "Nf4", "Tied"]


@dataclass(frozen=True)
class BlockForm(WeightForm):
    """What all forms in blocks share.

    Attributes:
        block: Neighbours that share a scale; smaller where it must divide.
        scheme: What the codes of a block mean.
        bits: Of a code.
    """

    scale_bytes: ClassVar[int] = 4
    no_block: ClassVar[Reason] = SHAPE
    reasons: ClassVar[tuple[Reason, ...]] = (SHAPE, TARGET)
    where: ClassVar[str]

    block: int = 32
    scheme: Scheme = "symmetric"
    bits: Literal[2, 4, 8] = 4

    @property
    def opset(self) -> int:
        # DequantizeLinear in blocks and types of 4 bits; types of 2 bits.
        return 21 if self.bits > 2 else 25

    @property
    def spec(self) -> BlockSpec:
        return BlockSpec(self.bits, self.block, self.scheme)

    @property
    def action(self) -> str:
        bits = self.bits
        code = {"symmetric": f"s{bits}", "affine": f"u{bits} affine", "nf4": "nf4"}[self.scheme]
        return f"{code} per block of {self.block}, {self.where}"

    def fits(self, weight: Weight, capabilities: Capabilities) -> Reason | None:
        if self.spec.fits(_channels(weight)) is None:
            return self.no_block.because(name=next(names_of(weight)), block=self.block)
        return None

    def fitted(self, weight: Weight, evidence: Evidence) -> Self | Reason:
        fitting = self.spec.fits(_channels(weight))
        assert fitting is not None
        return replace(self, block=fitting.block)

    def rounded(self, weight: Weight, evidence: Evidence) -> Loss:
        rows = even_rows(weight.array(), weight.uses[0].axis)
        return Loss(rows, rows - dequantize_rows(quantize_rows(rows, self.spec)), 0)

    def cost(self, use: Use, loss: Loss, evidence: Evidence) -> float:
        square = None if use.kind == "gather" else evidence.square(use.activation)
        found = super().cost(use, loss, evidence)
        if square is None:
            return found
        return found + block_noise(matrix_view(loss.values, loss.axis), square, self.block)

    def stored_bytes(self, weight: Weight) -> int:
        zero_bits = self.bits if self.scheme == "affine" else 0
        scales = weight.size // self.block * (8 * self.scale_bytes + zero_bits) // 8
        return weight.size * self.bits // 8 + scales


@dataclass(frozen=True)
class BlockProduct(BlockForm):
    """The weight of MatMul and Gemm nodes: what `int4` can be asked for by `format`."""

    counters: ClassVar[dict[str, str]] = {PRODUCTS: "MatMul and Gemm nodes with weights in blocks"}
    where: ClassVar[str] = "weight only"

    has_zero_points: ClassVar[bool] = True
    """Its scheme may be `affine`."""
    is_grid: ClassVar[bool] = True
    """Codes are steps of one size, so that errors of neighbours can make up for each other."""

    def serves(self, weight: Weight) -> bool:
        return kinds_of(weight) <= {"matmul", "gemm"}

    def fits(self, weight: Weight, capabilities: Capabilities) -> Reason | None:
        if self.name not in capabilities.weight_formats:
            return TARGET
        return super().fits(weight, capabilities)

    @classmethod
    @abstractmethod
    def wanted(cls, block: int, *, symmetric: bool) -> Self:
        """Return the form as options ask for it."""

    def write(self, desk: Desk, weight: Weight, made: WeightDecision) -> None:
        write_block_product(desk.editor, weight, self.spec, desk.rounding(weight))


@dataclass(frozen=True)
class Int4(BlockProduct):
    """integers of 4 bits, with or without a zero point for each block.

    Of 2 and 8 bits where `bits=auto` decides so.

    Attributes:
        scales: How they are stored.
        exact: Activations stay in float32, on targets whose kernels would round them otherwise.
    """

    name: ClassVar[str] = "int4"
    rounds_for_data: ClassVar[bool] = True

    scales: Scales = "float32"
    exact: bool = False

    @classmethod
    def wanted(cls, block: int, *, symmetric: bool, scales: Scales = "float32") -> Self:
        return cls(block, "symmetric" if symmetric else "affine", scales=scales)

    @property
    def spec(self) -> BlockSpec:
        return replace(super().spec, scales=self.scales)

    @property
    def action(self) -> str:
        coded = "" if self.scales == "float32" else " with scales in 8 bits"
        found = super().action.replace(",", f"{coded},", 1)
        return f"{found}, activations in float32" if self.exact else found

    def fits(self, weight: Weight, capabilities: Capabilities) -> Reason | None:
        if self.exact and self.bits not in capabilities.exact_block_bits:
            return TARGET
        refused = super().fits(weight, capabilities)
        if refused is not None:
            return refused
        fitting = self.spec.fits(_channels(weight))
        assert fitting is not None
        return None if (self.bits, fitting.block) in capabilities.block_kernels else TARGET

    def cost(self, use: Use, loss: Loss, evidence: Evidence) -> float:
        # The noise of activations is that of kernels which round them.
        if self.exact:
            return WeightForm.cost(self, use, loss, evidence)
        return super().cost(use, loss, evidence)

    def write(self, desk: Desk, weight: Weight, made: WeightDecision) -> None:
        super().write(desk, weight, made)
        if self.exact:
            for use in weight.uses:
                factor = use.node.inputs[1]
                node = None if factor is None else factor.producer()
                assert node is not None
                ask_for_exact_activations(node)

    def stored_bytes(self, weight: Weight) -> int:
        if self.scales == "float32":
            return super().stored_bytes(weight)
        channels = weight.size // _channels(weight)
        saved = (self.scale_bytes - 1) * (weight.size // self.block) - 4 * channels
        return super().stored_bytes(weight) - saved


@dataclass(frozen=True)
class Nf4(BlockProduct):
    """16 quantiles of the normal distribution, where the target has a kernel."""

    name: ClassVar[str] = "nf4"
    has_zero_points: ClassVar[bool] = False
    is_grid: ClassVar[bool] = False

    scheme: Scheme = "nf4"

    @classmethod
    def wanted(cls, block: int, *, symmetric: bool) -> Self:
        return cls(block)


@dataclass(frozen=True)
class BlockTable(BlockForm):
    """A table that is only looked up. Its scales are float16 where its values are ordinary."""

    name: ClassVar[str] = "table"
    counters: ClassVar[dict[str, str]] = {LOOKUPS: "embedding tables in 8 or 4 bits"}
    reasons: ClassVar[tuple[Reason, ...]] = ()
    is_table: ClassVar[bool] = True
    where: ClassVar[str] = "looked up"
    scale_bytes: ClassVar[int] = 2
    no_block: ClassVar[Reason] = ROWS

    def serves(self, weight: Weight) -> bool:
        return kinds_of(weight) == {"gather"}

    def write(self, desk: Desk, weight: Weight, made: WeightDecision) -> None:
        write_block_lookup(desk.editor, weight, self.spec)


@dataclass(frozen=True)
class Tied(BlockForm):
    """A table that is looked up and, turned, multiplied by: one tensor for both.

    In 8 bits codes are unsigned, as runtimes look them up.
    """

    name: ClassVar[str] = "tied"
    counters: ClassVar[dict[str, str]] = BlockProduct.counters | BlockTable.counters
    is_table: ClassVar[bool] = True
    where: ClassVar[str] = "looked up and multiplied"

    def serves(self, weight: Weight) -> bool:
        # The rows of a table are the output channels of a product by the same table turned round.
        turned = all(use.axis == 0 for use in weight.uses)
        products = kinds_of(weight) - {"gather"}
        looked_up = products != kinds_of(weight)
        return turned and looked_up and bool(products) and products <= {"matmul", "gemm"}

    def write(self, desk: Desk, weight: Weight, made: WeightDecision) -> None:
        write_tied(desk.editor, weight, self.spec)


def _channels(weight: Weight) -> int:
    return int(weight.tensor.shape.numpy()[1 - weight.uses[0].axis])
