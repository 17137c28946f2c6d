"""Weights that several nodes share: given one node its own copy, joined again when equal.

A pass that changes a weight for one of its users must not change it for the others. It asks for a
private initializer, which shares the tensor until the pass sets another. Copies that were never
changed are joined when the model is saved, so that asking costs nothing.
"""

from __future__ import annotations

import onnx_ir as ir

from irtools.model.digest import tensor_digest
from irtools.model.naming import FreshNames
from irtools.model.walk import iter_graphs

__all__ = ["join_initializers", "private_initializer", "with_joined_initializers"]

_ORIGIN = "irtools.separated-from"


def private_initializer(node: ir.Node, index: int, names: FreshNames) -> ir.Value:
    """Return the initializer that feeds an input, made so that only this input uses it.

    Where others use it too, or callers may override it, the input gets a copy under a fresh name.

    Args:
        node: The user.
        index: Position of the input.
        names: Free names of the model.

    Raises:
        ValueError: The input is not an initializer.
    """
    value = node.inputs[index]
    if value is None or value.const_value is None or not value.is_initializer():
        label = f"input {index} of {node.op_type} node {node.name!r}"
        raise ValueError(f"{label} is not an initializer")
    if len(value.uses()) == 1 and not value.is_graph_input() and not value.is_graph_output():
        return value
    graph = value.graph
    assert isinstance(graph, ir.Graph)
    copy = ir.Value(
        name=names.make(f"{value.name}_own"),
        type=value.type,
        shape=value.shape,
        const_value=value.const_value,
    )
    copy.meta[_ORIGIN] = value.meta.get(_ORIGIN, value.name)
    graph.register_initializer(copy)
    node.replace_input_with(index, copy)
    return copy


def join_initializers(model: ir.Model) -> int:
    """Join copies that `private_initializer` made with their origin where both are still equal.

    Returns:
        How many copies went away.
    """
    joined = 0
    for graph in iter_graphs(model):
        for name, value in list(graph.initializers.items()):
            origin = graph.initializers.get(str(value.meta.get(_ORIGIN, "")))
            if origin is None or origin.is_graph_input() or value.is_graph_output():
                continue
            if _equal(origin.const_value, value.const_value):
                value.replace_all_uses_with(origin)
                del graph.initializers[name]
                joined += 1
    return joined


def with_joined_initializers(model: ir.Model) -> ir.Model:
    """Return a model in which no two copies are equal: itself where there are none, else a copy."""
    values = (value for graph in iter_graphs(model) for value in graph.initializers.values())
    if not any(_ORIGIN in value.meta for value in values):
        return model
    joined = model.clone()
    join_initializers(joined)
    return joined


def _equal(one: ir.TensorProtocol | None, other: ir.TensorProtocol | None) -> bool:
    if one is None or other is None:
        return False
    return one is other or tensor_digest(one) == tensor_digest(other)
