"""Making nodes that several rewrites of a graph share."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irtools.analysis.dims import Dim
from irtools.model import FreshNames
from irtools.passes.fusion._pattern import Source, make_node

__all__ = ["Maker"]


class Maker:
    """Makes nodes for one rewrite; what an earlier rewrite of the same graph made is used again.

    Args:
        names: Names that are free.
        source: Where the new nodes come from.
        made: What was made so far, shared by all rewrites of a pass.

    Attributes:
        nodes: New nodes, in order, to be inserted by the caller.
    """

    def __init__(self, names: FreshNames, source: Source, made: dict[Hashable, ir.Value]) -> None:
        self._names = names
        self._source = source
        self._made = made
        self.nodes: list[ir.Node] = []

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, Any] | None = None,
        key: Hashable = None,
    ) -> ir.Value:
        """Return the output of a node; the same one for the same operator, inputs and attributes.

        Args:
            op_type: A standard operator.
            inputs: Its inputs.
            attributes: Its attributes.
            key: What stands for the node instead, where other inputs give the same result.
        """
        if key is None:
            key = (op_type, tuple(inputs), str(attributes))
        key = (self._source.anchor.graph, key)
        if key not in self._made:
            node = make_node(op_type, inputs, self._source, self._names, attributes)
            self.nodes.append(node)
            self._made[key] = node.outputs[0]
        return self._made[key]

    def constant(self, array: np.ndarray) -> ir.Value:
        """Return a constant."""
        key = ("constant", str(array.dtype), array.shape, array.tobytes())
        return self.node("Constant", [], {"value": ir.tensor(array)}, key=key)

    def number(self, number: float, dtype: ir.DataType) -> ir.Value:
        """Return a constant of rank 0."""
        return self.constant(np.asarray(number, dtype.numpy()))

    def integers(self, numbers: Sequence[int]) -> ir.Value:
        """Return a constant of rank 1."""
        return self.constant(np.asarray(numbers, np.int64))

    def size(self, value: ir.Value, axis: int, size: Dim) -> ir.Value:
        """Return [size], which is that of an axis of `value`."""
        if isinstance(size, int):
            return self.integers([size])
        return self.node("Shape", [value], {"start": axis, "end": axis + 1}, key=("size", size))

    def squeezed(self, table: ir.Value, rank: int) -> ir.Value:
        """Return a table of rotary embedding [B,1,S,D], [B,S,D] or [S,D] as [B,S,D]."""
        if rank == 4:
            return self.node("Squeeze", [table, self.integers([1])])
        return self.node("Unsqueeze", [table, self.integers([0])]) if rank == 2 else table

    def expanded_batch(self, table: ir.Value, x: ir.Value, batch: Dim) -> ir.Value:
        """Return a table [1,S,D] as [B,S,D], with the batch size of x."""
        sizes = [self.size(x, 0, batch), self.integers([1]), self.integers([1])]
        target = self.node("Concat", sizes, {"axis": 0})
        return self.node("Expand", [table, target])
