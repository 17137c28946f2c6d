"""Weights that are stored in fewer bits and multiplied in floating point.

    codes W -> Cast to float32 -> Mul by scale [.., 1, ..] -> (Cast to the model's type) -> readers

Runtimes compute this once, when they load the model, so that the file is small and the model has
the speed and the kernels of the original. (A DequantizeLinear says the same, and is kept for
integer kernels by some: it would expand the weight at each run, and cost a Conv its layout.)

The weight stays where it is, in the main graph or in a body: folded there, it lets the runtime
choose the same kernels as before. In front of the Loop it would be folded as well, but be passed
to the body as a value that not every kernel can pack. With all optimizations off it is expanded at
every run, of a body too: equal numbers, at the price of time.

Two scale axes cost nothing here (DequantizeLinear has one): each direction of a recurrent layer
has scales of its own. Standard operators since opset 7.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from irtools.model import iter_nodes, subgraphs
from irtools.passes.quantization.sites.stored import StoredWeight
from irtools.passes.quantization.write.desk import Desk

__all__ = ["StorageWriter"]


class StorageWriter:
    """Stores weights of one model in fewer bits, each in its own graph."""

    def __init__(self, desk: Desk) -> None:
        self._editor = desk.editor
        self._carriers = {
            inner: node for node in iter_nodes(desk.model) for inner in subgraphs(node)
        }

    def write(
        self,
        weight: StoredWeight,
        codes: ir.Tensor,
        scale: np.ndarray | None,
        through: ir.DataType | None = None,
    ) -> None:
        """Replace a weight by codes and what expands them, for all its readers.

        Args:
            weight: The weight.
            codes: Of its shape.
            scale: What codes are multiplied by, of a shape that broadcasts; None: nothing.
            through: A type that codes are cast to first.
        """
        old, dtype = weight.value, weight.tensor.dtype
        anchor = self._anchor(old)
        if scale is None:
            half = self._constant(old, f"{weight.name}_half", codes)
            new = self._cast(anchor, half, f"{weight.name}_restored", dtype)
        else:
            new = self._scaled(anchor, weight, codes, scale, through)
            if dtype != ir.DataType.FLOAT:
                new = self._cast(anchor, new, f"{weight.name}_restored", dtype)
        self._editor.forward(old, new)
        self._editor.drop_unread(old)

    def _scaled(
        self,
        anchor: ir.Node,
        weight: StoredWeight,
        codes: ir.Tensor,
        scale: np.ndarray,
        through: ir.DataType | None,
    ) -> ir.Value:
        table = self._constant(weight.value, f"{weight.name}_quantized", codes)
        steps = self._constant(weight.value, f"{weight.name}_scale", scale)
        if through is not None:
            table = self._cast(anchor, table, f"{weight.name}_wide", through)
        numbers = self._cast(anchor, table, f"{weight.name}_integers", ir.DataType.FLOAT)
        return self._editor.before(
            anchor,
            "Mul",
            [numbers, steps],
            outputs={f"{weight.name}_dequantized": ir.DataType.FLOAT},
            shape=ir.Shape(codes.shape.numpy()),
        )

    def _anchor(self, old: ir.Value) -> ir.Node:
        """Return the node before which that goes what takes the place of a weight."""
        return old.producer() or self._first_reader(old)

    def _first_reader(self, value: ir.Value) -> ir.Node:
        """Return the first node of the value's graph that reads it, itself or in its bodies."""
        readers = {self._ancestor(node, value.graph) for node, _ in value.uses()}
        assert value.graph is not None
        return next(node for node in value.graph if node in readers)

    def _ancestor(self, node: ir.Node, graph: object) -> ir.Node:
        """Return the node of `graph` that `node` is, or is inside of."""
        while node.graph is not graph:
            assert isinstance(node.graph, ir.Graph)
            node = self._carriers[node.graph]
        return node

    def _constant(self, old: ir.Value, name: str, data: np.ndarray | ir.Tensor) -> ir.Value:
        """Add a constant next to the weight, as an initializer or a node as the weight is."""
        graph = old.graph
        assert isinstance(graph, ir.Graph)
        return self._editor.constant(name, data, graph=graph, before=old.producer())

    def _cast(self, anchor: ir.Node, value: ir.Value, name: str, to: ir.DataType) -> ir.Value:
        return self._editor.before(
            anchor, "Cast", [value], {"to": to.value}, outputs={name: to}, shape=value.shape
        )
