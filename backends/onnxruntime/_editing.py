"""Small edits that the lowerings share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from irtools.analysis.shapes import constant_of

__all__ = ["constant_array", "only_user", "remove_unused", "replace_node"]


def constant_array(value: ir.Value | None) -> np.ndarray | None:
    """Return the value as an array where it is constant and no caller can override it."""
    tensor = constant_of(value)
    return None if tensor is None else tensor.numpy()


def only_user(value: ir.Value) -> ir.Node | None:
    """Return the one node that reads a value, or None where others see it too."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    (use,) = uses
    return use.node


def replace_node(
    old: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    *,
    domain: str = "",
    attributes: Iterable[ir.Attr] = (),
    source: ir.Node | None = None,
) -> ir.Node:
    """Put a node with one output in the place of another; names and types stay.

    Args:
        old: The node to replace; its first output is taken over.
        op_type: Operator of the new node.
        inputs: Its inputs.
        domain: Its domain.
        attributes: Its attributes.
        source: Whose name and metadata the new node takes; `old` by default.
    """
    source = source or old
    new = ir.Node(domain, op_type, inputs, attributes, name=source.name)
    new.metadata_props.update(source.metadata_props)
    output, made = old.outputs[0], new.outputs[0]
    made.name, made.type, made.shape = output.name, output.type, output.shape
    made.metadata_props.update(output.metadata_props)
    graph = old.graph
    assert graph is not None
    graph.insert_before(old, new)
    ir.convenience.replace_all_uses_with(output, made, replace_graph_outputs=True)
    graph.remove(old, safe=True)
    return new


def remove_unused(node: ir.Node | None) -> None:
    """Remove a node that nobody reads, and then whatever it alone has read."""
    pending = [node]
    while pending:
        node = pending.pop()
        if node is None or node.graph is None or any(_is_read(v) for v in node.outputs):
            continue
        inputs = [value for value in node.inputs if value is not None]
        node.graph.remove(node, safe=True)
        for value in inputs:
            pending.append(value.producer())
            _forget_initializer(value)


def _is_read(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


def _forget_initializer(value: ir.Value) -> None:
    if value.is_initializer() and not value.is_graph_input() and not _is_read(value):
        assert value.graph is not None and value.name is not None
        del value.graph.initializers[value.name]
