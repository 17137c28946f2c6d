"""Weights that already lie on a grid, stored as that grid: nothing is rounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np

from irtools.model import release_tensor
from irtools.passes.quantization.forms.base import WeightDecision
from irtools.passes.quantization.forms.weights import (
    LOOKUPS,
    PRODUCTS,
    Loss,
    WeightForm,
    even_rows,
    kinds_of,
)
from irtools.passes.quantization.ranges.evidence import Evidence
from irtools.passes.quantization.ranges.grid_blocks import Zero
from irtools.passes.quantization.ranges.grids import (
    Bits,
    Grid,
    Numbers,
    find_grid,
    grid_rounding,
)
from irtools.passes.quantization.ranges.spec import BlockSpec
from irtools.passes.quantization.sites.uses import Weight
from irtools.passes.quantization.write.block_weights import write_block_lookup, write_tied
from irtools.passes.quantization.write.desk import Desk
from irtools.passes.quantization.write.grids import write_grid_product

__all__ = ["GRIDS", "GridProduct", "GridTable", "Grids", "find_grids"]

GRIDS = "num-kept-grid"
Grids: TypeAlias = Mapping[str, Grid]
"""Grids of weights, by name."""
_BYTES: Mapping[Numbers, float] = {"f16": 2, "nested": 1 + 2 / 8, "f32": 4}


@dataclass(frozen=True)
class GridForm(WeightForm):
    """What both forms on grids share; the fields are those of `Grid`."""

    counters: ClassVar[dict[str, str]] = {
        GRIDS: "weights that lay on a grid of blocks and keep it, exactly"
    }

    bits: Bits = 4
    block: int = 32
    zero: Zero = "integer"
    signed: bool = True
    numbers: Numbers = "f16"
    middle: int = 0

    @classmethod
    def of(cls, grid: Grid) -> GridForm:
        """Return the form of a grid."""
        return cls(grid.bits, grid.block, grid.zero, grid.signed, grid.numbers, grid.middle)

    @property
    def opset(self) -> int:
        return 21  # DequantizeLinear in blocks, and types of 4 bits.

    @property
    def grid(self) -> Grid:
        """The grid."""
        return Grid(self.bits, self.block, self.zero, self.signed, self.numbers, self.middle)

    @property
    def spec(self) -> BlockSpec:
        """The form of its codes."""
        return self.grid.spec

    @property
    def action(self) -> str:
        return f"{self.bits} bits per block of {self.block}, the grid that it lies on, exactly"

    def rounded(self, weight: Weight, evidence: Evidence) -> Loss:
        rows = even_rows(weight.array(), weight.uses[0].axis)
        return Loss(rows, np.zeros_like(rows), 0)

    def count(self, weight: Weight) -> Counter[str]:
        return super().count(weight) + Counter({GRIDS: 1})

    def _zero_bits(self) -> int:
        return 0 if self.spec.scheme == "symmetric" else self.bits


@dataclass(frozen=True)
class GridProduct(GridForm):
    """The weight of MatMul and Gemm nodes."""

    name: ClassVar[str] = "grid"
    counters: ClassVar[dict[str, str]] = {
        **GridForm.counters,
        PRODUCTS: "MatMul and Gemm nodes with weights in blocks",
    }

    def serves(self, weight: Weight) -> bool:
        return kinds_of(weight) <= {"matmul", "gemm"}

    def stored_bytes(self, weight: Weight) -> int:
        numbers = _BYTES[self.numbers] * (2 if self.zero == "float" else 1)
        blocks = weight.size // self.block
        return weight.size * self.bits // 8 + int(blocks * (numbers + self._zero_bits() / 8))

    def write(self, desk: Desk, weight: Weight, made: WeightDecision) -> None:
        write_grid_product(desk, weight, self.grid)


@dataclass(frozen=True)
class GridTable(GridForm):
    """A table that is looked up, and perhaps multiplied by. Its steps stay float32.

    Runtimes look up in unsigned codes of 8 bits, and expand a table whose steps are computed.
    """

    name: ClassVar[str] = "grid-table"
    counters: ClassVar[dict[str, str]] = {
        **GridForm.counters,
        PRODUCTS: "MatMul and Gemm nodes with weights in blocks",
        LOOKUPS: "embedding tables in 8 or 4 bits",
    }
    is_table: ClassVar[bool] = True

    @property
    def spec(self) -> BlockSpec:
        return BlockSpec(8, self.block, "affine") if self.bits == 8 else self.grid.spec

    def serves(self, weight: Weight) -> bool:
        kinds = kinds_of(weight)
        turned = kinds == {"gather"} or all(use.axis == 0 for use in weight.uses)
        allowed = kinds <= {"gather", "matmul", "gemm"} and "gather" in kinds
        return allowed and turned and self.zero == "integer"

    def stored_bytes(self, weight: Weight) -> int:
        blocks = weight.size // self.block
        return weight.size * self.bits // 8 + int(blocks * (4 + self._zero_bits() / 8))

    def write(self, desk: Desk, weight: Weight, made: WeightDecision) -> None:
        writes = write_block_lookup if kinds_of(weight) == {"gather"} else write_tied
        writes(desk.editor, weight, self.spec, grid_rounding(self.grid))


def find_grids(weights: Iterable[Weight], workers: int = 1) -> Grids:
    """Return the grids of those weights that lie on one.

    Args:
        weights: Of products and lookups.
        workers: So many are looked at at a time.
    """
    matrices = [w for w in weights if not kinds_of(w) & {"conv"} and len(w.tensor.shape) == 2]
    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(_grid_of, matrices))
    return {w.name: grid for w, grid in zip(matrices, found, strict=True) if grid is not None}


def _grid_of(weight: Weight) -> Grid | None:
    found = find_grid(weight.array(), weight.uses[0].axis)
    release_tensor(weight.tensor)
    return found
