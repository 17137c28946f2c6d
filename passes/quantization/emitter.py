"""Adding nodes and constants to a graph: fresh names, types, and the right place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from irtools.model.naming import FreshNames

__all__ = ["Emitter"]


class Emitter:
    """Writes into one graph. Made once per pass: it reads all names of the model."""

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        self._names = FreshNames(model)
        # Nodes are only added in between, so the order of the original ones stays.
        self._order = {node: index for index, node in enumerate(model.graph)}

    def position(self, node: ir.Node) -> int:
        """Return where a node of the original graph stands; only the order means anything."""
        return self._order[node]

    def fresh(self, name: str) -> str:
        """Return `name`, or the next one that no value and no node of the model has."""
        return self._names.make(name)

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """Add an initializer; its name is `name` or the next free one."""
        return self.initializer(name, ir.Tensor(np.asarray(array, order="C")))

    def initializer(self, name: str, tensor: ir.Tensor | ir.PackedTensor) -> ir.Value:
        """Add a tensor that nobody else has; its name is `name` or the next free one."""
        tensor.name = name = self._names.make(name)
        value = ir.Value(
            name=name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(tensor.shape.numpy()),
            const_value=tensor,
        )
        self.graph.register_initializer(value)
        return value

    def before(
        self,
        anchor: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        outputs: Mapping[str, ir.DataType],
        *,
        shape: ir.Shape | None = None,
        attributes: Mapping[str, int | float | str | Sequence[int]] | None = None,
    ) -> ir.Value:
        """Add a node in front of `anchor` and return its first output.

        Args:
            anchor: The new node's first reader, or a node in front of it.
            op_type: A standard operator.
            inputs: Its inputs.
            outputs: Name to element type of every output.
            shape: Shape of the first output, where it is known.
            attributes: Its attributes.
        """
        node = self._make(op_type, inputs, outputs, shape, attributes)
        self.graph.insert_before(anchor, node)
        return node.outputs[0]

    def behind(
        self,
        value: ir.Value,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        outputs: Mapping[str, ir.DataType],
        *,
        attributes: Mapping[str, int | float | str | Sequence[int]] | None = None,
    ) -> ir.Value:
        """Add a node right behind the producer of `value` and return its first output.

        The first output takes the shape of `value`. Behind a graph input means: at the front.
        """
        node = self._make(op_type, inputs, outputs, value.shape, attributes)
        producer = value.producer()
        if producer is not None:
            self.graph.insert_after(producer, node)
        else:
            self.graph.insert_before(self.graph[0], node)
        return node.outputs[0]

    def replace(
        self,
        node: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, int] | None = None,
    ) -> None:
        """Put another node in the place of `node`; its output keeps its name."""
        old = node.outputs[0]
        name = self._names.make(f"{old.name}/{op_type}")
        new = ir.node(op_type, inputs, attributes=attributes or {}, name=name)
        result = new.outputs[0]
        result.type, result.shape, result.name = old.type, old.shape, old.name
        result.metadata_props.update(old.metadata_props)
        self.graph.insert_before(node, new)
        ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
        self.graph.remove(node, safe=True)

    def hand_out(self, value: ir.Value, new: ir.Value) -> None:
        """Let `new` be the graph output that `value` was, under its name."""
        assert value.name is not None
        new.name, value.name = value.name, self._names.make(f"{value.name}_float")
        new.metadata_props.update(value.metadata_props)
        for index, output in enumerate(self.graph.outputs):
            if output is value:
                self.graph.outputs[index] = new

    def add_to(self, value: ir.Value, term: ir.Value) -> None:
        """Let all readers of `value`, and the caller of the model, have `value + term`."""
        producer = value.producer()
        assert producer is not None
        node = self._make(
            "Add", [value, term], {f"{value.name}_whole": ir.DataType.FLOAT}, value.shape, None
        )
        whole = node.outputs[0]
        for reader, index in tuple(value.uses()):
            reader.replace_input_with(index, whole)
        node.replace_input_with(0, value)
        self.graph.insert_after(producer, node)
        if value.is_graph_output():
            self.hand_out(value, whole)

    def drop_unread(self, value: ir.Value) -> None:
        """Remove a constant, and the Transposes behind it, that nobody reads any more."""
        for node, _ in tuple(value.uses()):
            if node.op_type == "Transpose" and not node.outputs[0].uses():
                self.graph.remove(node, safe=True)
        if value.uses() or value.is_graph_output() or value.is_graph_input():
            return
        if value.is_initializer():
            assert value.name is not None
            del self.graph.initializers[value.name]
        elif (producer := value.producer()) is not None:
            self.graph.remove(producer, safe=True)

    def _make(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        outputs: Mapping[str, ir.DataType],
        shape: ir.Shape | None,
        attributes: Mapping[str, int | float | str | Sequence[int]] | None,
    ) -> ir.Node:
        node = ir.node(op_type, inputs, attributes=attributes or {}, num_outputs=len(outputs))
        node.name = self._names.make(f"{next(iter(outputs))}/{op_type}")
        for value, (name, dtype) in zip(node.outputs, outputs.items(), strict=True):
            value.name = self._names.make(name)
            value.type = ir.TensorType(dtype)
        node.outputs[0].shape = shape.copy() if shape is not None else None
        return node
