"""What a rule may ask about the tensors around a node."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import onnx_ir as ir

from irtools.analysis.dims import Dim

__all__ = ["Shape", "ShapeFacts"]

Shape = tuple[Dim, ...]


class ShapeFacts(Protocol):
    """What is known of shapes before the model runs; `SymbolicShapes` is one."""

    def shape(self, value: ir.Value | None) -> Shape | None:
        """The shape of a tensor; None where not even the rank is known."""

    def rank(self, value: ir.Value | None) -> int | None:
        """The number of dimensions, or None."""

    def integers(self, value: ir.Value | None) -> np.ndarray | None:
        """The elements of a small integer or boolean tensor, as an array of `Dim | bool`."""

    def constant(self, value: ir.Value | None) -> ir.TensorProtocol | None:
        """The tensor of a value that never changes, or None."""
