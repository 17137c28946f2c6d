"""Writing the nodes of one rewrite, all at one place."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irtools.editing.editor import Editor

__all__ = ["Place"]


class Place:
    """Writes nodes at one place of a graph.

    What an earlier rewrite of the same graph made with `shared` is used again. It may then stand
    after its first reader: a rule that shares must sort the graph at the end.

    Args:
        editor: Of the model.
        origin: The node that new ones grow out of: they take its metadata and its path.
        before: Where they go; in front of `origin` by default.
        replaces: The nodes whose work they do.
    """

    def __init__(
        self,
        editor: Editor,
        origin: ir.Node,
        *,
        before: ir.Node | None = None,
        replaces: Sequence[ir.Node] = (),
    ) -> None:
        self._editor = editor
        self._origin = origin
        self._before = before or origin
        self._replaces = tuple(dict.fromkeys(replaces))

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        outputs: int = 1,
    ) -> Sequence[ir.Value]:
        """Add a node; returns its outputs."""
        node = self._editor.node(
            op_type,
            inputs,
            attributes,
            outputs=outputs,
            origin=self._origin,
            replaces=self._replaces,
        )
        graph = self._before.graph
        assert graph is not None
        graph.insert_before(self._before, node)
        return node.outputs

    def value(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
    ) -> ir.Value:
        """Add a node with one output; returns it."""
        return self.node(op_type, inputs, attributes)[0]

    def shared(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
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
        key = (self._before.graph, key)
        made = self._editor.made
        if key not in made:
            made[key] = self.value(op_type, inputs, attributes)
        return made[key]

    def constant(self, array: np.ndarray) -> ir.Value:
        """Return a Constant node's output; the same one for the same array."""
        key = ("constant", str(array.dtype), array.shape, array.tobytes())
        return self.shared("Constant", [], {"value": ir.tensor(array)}, key=key)

    def number(self, number: float, dtype: ir.DataType) -> ir.Value:
        """Return a constant of rank 0."""
        return self.constant(np.asarray(number, dtype.numpy()))

    def integers(self, numbers: Sequence[int]) -> ir.Value:
        """Return a constant of rank 1."""
        return self.constant(np.asarray(numbers, np.int64))
