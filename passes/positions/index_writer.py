"""Writing integers that are computed from a mask when the model runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from irtools.editing import Editor

__all__ = ["IndexWriter"]

_Sizes = Sequence[int | ir.SymbolicDim | None]


class IndexWriter:
    """Adds nodes after what they read, and constants once each.

    Args:
        editor: Of the model.
    """

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self._constants: dict[tuple[int, ...] | int, ir.Value] = {}

    def add(
        self,
        name: str,
        shape: _Sizes,
        op_type: str,
        *inputs: ir.Value,
        dtype: ir.DataType | None = ir.DataType.INT64,
        **attributes: int,
    ) -> ir.Value:
        """Add a node; return its result.

        Args:
            name: Of the result.
            shape: Of the result; None where a size is not known.
            op_type: The operator.
            inputs: What it reads.
            dtype: Of the result.
            attributes: Of the node.
        """
        return self._editor.after(
            inputs[0],
            op_type,
            inputs,
            attributes,
            outputs={name: dtype},
            shape=ir.Shape(shape),
        )

    def ints(self, *numbers: int) -> ir.Value:
        """Return a constant list of integers."""
        return self._constant(numbers, np.asarray(numbers, np.int64))

    def scalar(self, number: int) -> ir.Value:
        """Return a constant integer."""
        return self._constant(number, np.asarray(number, np.int64))

    def _constant(self, key: tuple[int, ...] | int, array: np.ndarray) -> ir.Value:
        if key not in self._constants:
            self._constants[key] = self._editor.constant("token_constant", array)
        return self._constants[key]
