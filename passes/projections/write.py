"""Writing one product in place of several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from irtools.editing import Editor, attribute_values, constant_of
from irtools.passes.projections.tree import Joined, Made, Tree

__all__ = ["write"]

_SIZES_AS_INPUT = 13
"""The opset from which Split takes its sizes as an input."""


def write(
    editor: Editor,
    anchor: ir.Node,
    tree: Made,
    results: Sequence[ir.Value],
    columns: Sequence[int],
) -> None:
    """Make results as one, and take that apart along its last axis.

    Args:
        editor: Of the model.
        anchor: One of the products.
        tree: How all results are made.
        results: What is made.
        columns: Of each result.
    """
    graph = anchor.graph
    assert isinstance(graph, ir.Graph)
    whole = _Writer(editor, anchor, columns).value(tree)
    assert whole is not None
    replaced = [node for value in results if (node := value.producer()) is not None]
    inputs = [whole]
    attributes: dict[str, int | list[int]] = {"axis": -1}
    if editor.graph.opset_imports.get("", 0) < _SIZES_AS_INPUT:
        attributes["split"] = list(columns)
    else:
        inputs.append(editor.constant(f"{whole.name}_sizes", np.asarray(columns, np.int64)))
    split = editor.node(
        "Split", inputs, attributes, outputs=len(replaced), origin=anchor, replaces=replaced
    )
    graph.insert_before(anchor, split)
    for value, part in zip(results, split.outputs, strict=True):
        editor.substitute(value, part)
    editor.drop_unread(*replaced)
    # Biases of later products, and what they have in common, may come after the first of them.
    graph.sort()


class _Writer:
    """Makes the nodes and weights of a tree, each once."""

    def __init__(self, editor: Editor, anchor: ir.Node, columns: Sequence[int]) -> None:
        self._editor, self._anchor, self._columns = editor, anchor, columns
        self._made: dict[Joined | Made, ir.Value] = {}

    def value(self, tree: Tree) -> ir.Value | None:
        if tree is None or isinstance(tree, ir.Value):
            return tree
        if tree not in self._made:
            self._made[tree] = self._join(tree) if isinstance(tree, Joined) else self._node(tree)
        return self._made[tree]

    def _join(self, tree: Joined) -> ir.Value:
        found = [None if value is None else constant_of(value) for value in tree.values]
        given = next(tensor for tensor in found if tensor is not None)
        tensors = [
            tensor or ir.tensor(np.zeros(size, given.numpy().dtype))
            for tensor, size in zip(found, self._columns, strict=True)
        ]
        name = next(value.name for value in tree.values if value is not None)
        return self._editor.constant(f"{name}_merged", _concatenated(tensors, tree.axis))

    def _node(self, tree: Made) -> ir.Value:
        first = tree.nodes[0]
        attributes = attribute_values(first)
        if "N" in attributes:
            attributes["N"] = sum(node.attributes["N"].as_int() for node in tree.nodes)
        inputs = [self.value(part) for part in tree.inputs]
        outputs = {f"{first.outputs[0].name}_merged": first.outputs[0].dtype}
        return self._editor.before(
            self._anchor, first.op_type, inputs, attributes, domain=first.domain, outputs=outputs
        )


def _concatenated(
    tensors: Sequence[ir.TensorProtocol], axis: int
) -> np.ndarray | ir.TensorProtocol:
    """Return tensors one after the other; codes of 4 bits stay two to a byte."""
    dtype, shapes = tensors[0].dtype, [tensor.shape.numpy() for tensor in tensors]
    if dtype.bitwidth != 4 or axis != -1 or any(shape[-1] % 2 for shape in shapes):
        return np.concatenate([tensor.numpy() for tensor in tensors], axis)
    rows = [
        np.frombuffer(tensor.tobytes(), np.uint8).reshape(*shape[:-1], shape[-1] // 2)
        for tensor, shape in zip(tensors, shapes, strict=True)
    ]
    size = sum(shape[-1] for shape in shapes)
    packed = np.concatenate(rows, axis).reshape(-1)
    return ir.PackedTensor(packed, dtype, shape=ir.Shape([*shapes[0][:-1], size]))
