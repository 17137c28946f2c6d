"""8-bit floats in blocks of rows and columns, as DeepSeek and Transformers store them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irtools.checkpoints.methods.base import Layout
from irtools.checkpoints.parts import Parts, spread

__all__ = ["Fp8"]

_SCALES = ("F32", "BF16", "F16", "F8_E8M0")


@dataclass(frozen=True)
class Fp8:
    """w = f s, one scale s for each block; without blocks one for the weight.

    Attributes:
        block: Rows and columns.
    """

    main: ClassVar[str] = "weight_scale_inv"
    others: ClassVar[tuple[str, ...]] = ("weight",)
    unread: ClassVar[tuple[str, ...]] = ("activation_scale", "input_scale")

    block: tuple[int, int] | None

    def weight(self, parts: Parts) -> np.ndarray:
        stored = parts.read("weight", ("F8_E4M3",), 2)
        shape = (stored.shape[0], stored.shape[1])
        # The name says inverse, and it is what the numbers are multiplied by.
        scale = parts.read("weight_scale_inv", _SCALES).astype(np.float32)
        block = self.block or shape
        grid = scale.reshape(1, 1) if scale.size == 1 and scale.ndim < 2 else scale
        scales = spread(grid, shape, block, parts, "weight_scale_inv")
        found: np.ndarray = stored.astype(np.float32) * scales
        return found

    def layout(self, parts: Parts) -> Layout:
        return Layout.OTHER
