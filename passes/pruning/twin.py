"""Two models on the same inputs, side by side in one graph."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from irtools.editing import Editor

__all__ = ["side_by_side"]


def side_by_side(
    left: ir.Model, right: ir.Model, left_names: Sequence[str], right_names: Sequence[str]
) -> tuple[ir.Model, dict[str, str]]:
    """Return a model that computes tensors of two others in one run.

    What the wanted tensors do not need is left out. Weights that both have are there once.

    Args:
        left: A model; its tensors keep their names.
        right: A model with the same inputs, functions and opsets.
        left_names: Inner tensors wanted of `left`.
        right_names: Inner tensors wanted of `right`.

    Returns:
        The model, and for each of `right_names` its name in there.
    """
    graph = ir.convenience.extract(left.graph, list(left.graph.inputs), left_names)
    other = ir.convenience.extract(right.graph, list(right.graph.inputs), right_names)
    inputs = {value.name: value for value in graph.inputs}
    for value in other.inputs:
        value.replace_all_uses_with(inputs[value.name])
    _share_weights(graph, other)
    functions = list(left.clone().functions.values())
    model = ir.Model(graph, ir_version=left.ir_version, functions=functions)
    renamed = _move(other, Editor(model, "prune"))
    return model, {name: renamed[name] for name in right_names}


def _share_weights(graph: ir.Graph, other: ir.Graph) -> None:
    own = {id(v.const_value): v for v in graph.initializers.values() if v.const_value is not None}
    for name, value in list(other.initializers.items()):
        same = own.get(id(value.const_value))
        if same is not None:
            value.replace_all_uses_with(same)
            del other.initializers[name]


def _move(other: ir.Graph, editor: Editor) -> dict[str, str]:
    """Move all of a graph to the end of another one; return old names to new ones."""
    weights = dict(other.initializers)
    outputs, nodes = list(other.outputs), list(other)
    other.outputs.clear()
    other.remove(nodes)
    renamed: dict[str, str] = {}
    for name, value in weights.items():
        copy = editor.constant(f"{name}_right", _tensor(value))
        value.replace_all_uses_with(copy)
        renamed[name] = copy.name or ""
    for node in nodes:
        node.name = None
        for value in node.outputs:
            if value.name:
                old = value.name
                renamed[old] = value.name = editor.fresh(f"{old}_right")
    editor.graph.extend(nodes)
    editor.graph.outputs.extend(outputs)
    return renamed


def _tensor(weight: ir.Value) -> ir.TensorProtocol:
    if weight.const_value is None:
        raise ValueError(f"the weight {weight.name!r} has no contents")
    return weight.const_value
