"""Models of float16 in float32, where a target computes in nothing else.

    x float16 -> Cast -> the graph in float32 -> Cast -> y float16

Such a target puts these Casts around every operator itself, so that this costs no time and loses no
digits. Its int8 kernels take weights of float32 and sums of float32 alone. Inputs and outputs keep
their types.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from irtools.analysis.types import element_type
from irtools.editing import Editor
from irtools.model import iter_graphs

__all__ = ["can_widen", "widen"]

_HALF, _WIDE = ir.DataType.FLOAT16, ir.DataType.FLOAT
_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})
"""Operators of others may take float16 alone."""
_TYPES = frozenset({"dtype", "to", "output_dtype"})
"""Attributes that name the type of a result."""


def can_widen(model: ir.Model) -> bool:
    """Whether a model computes in float16, and in nothing that may not be float32 in its place.

    That is: operators that are not known, sequences of tensors, an output that is an input or a
    weight. Weights that are stored in 16 bits and computed in float32, with a Cast, are no reason.
    """
    graphs = tuple(iter_graphs(model))
    if not any(_computes(value) for graph in graphs for value in graph.initializers.values()):
        return False
    own = {(domain, name) for domain, name, _ in model.functions}
    for graph in graphs:
        for node in graph:
            if node.domain not in _DOMAINS and (node.domain, node.op_type) not in own:
                return False
            if any(not isinstance(v.type, ir.TensorType | None) for v in node.outputs):
                return False
    outputs = (value for value in model.graph.outputs if value.dtype == _HALF)
    return all(value.producer() is not None for value in outputs)


def widen(model: ir.Model, rule: str) -> int:
    """Compute in float32 what a model computes in float16.

    Args:
        model: Changed in place; `can_widen` must hold.
        rule: What new nodes name as their maker.

    Returns:
        How many weights of the main graph are of float32 now.
    """
    editor = Editor(model, rule)
    fixed = {value for value in model.graph.inputs if value.dtype == _HALF}
    for value in fixed:
        _widen_input(editor, value)
    fixed |= _narrow_outputs(editor)
    count = 0
    for graph in iter_graphs(model):
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is None or not _is_half(tensor) or value in fixed:
                continue
            value.const_value = _wide(tensor)
            count += graph is model.graph
        for value in (*graph.inputs, *graph.initializers.values()):
            _retype(value, fixed)
        for node in graph:
            _widen_node(node, fixed)
    _drop_casts(editor, model, fixed)
    return count


def _computes(weight: ir.Value) -> bool:
    readers = weight.consumers()
    return _is_half(weight.const_value) and any(node.op_type != "Cast" for node in readers)


def _is_half(tensor: ir.TensorProtocol | None) -> bool:
    return tensor is not None and tensor.dtype == _HALF


def _wide(tensor: ir.TensorProtocol) -> ir.Tensor:
    return ir.Tensor(tensor.numpy().astype(np.float32), name=tensor.name)


def _retype(value: ir.Value, fixed: set[ir.Value]) -> None:
    if value.dtype == _HALF and value not in fixed:
        value.type = ir.TensorType(_WIDE)


def _widen_input(editor: Editor, value: ir.Value) -> None:
    readers = tuple(value.uses())
    if not readers:
        return
    outputs = {f"{value.name}_wide": _WIDE}
    wide = editor.after(value, "Cast", [value], {"to": _WIDE.value}, outputs=outputs)
    for node, index in readers:
        node.replace_input_with(index, wide)


def _narrow_outputs(editor: Editor) -> set[ir.Value]:
    """Give outputs of float16 a Cast; return what it makes."""
    made = set()
    for value in tuple(dict.fromkeys(editor.graph.outputs)):
        if value.dtype != _HALF or value.producer() is None:
            continue
        outputs = {f"{value.name}_half": _HALF}
        attributes = {"to": _HALF.value}
        half = editor.append(
            editor.graph, "Cast", [value], attributes, outputs=outputs, shape=value.shape
        )
        editor.replace_output(value, half, f"{value.name}_float")
        made.add(half)
    return made


def _widen_node(node: ir.Node, fixed: set[ir.Value]) -> None:
    if any(value in fixed for value in node.outputs):
        return
    for name, attribute in tuple(node.attributes.items()):
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.TENSOR and _is_half(attribute.as_tensor()):
            node.attributes[name] = ir.AttrTensor(name, _wide(attribute.as_tensor()))
        elif name in _TYPES and node.attributes.get_int(name, 0) == _HALF.value:
            node.attributes[name] = ir.AttrInt64(name, _WIDE.value)
    for value in node.outputs:
        _retype(value, fixed)


def _drop_casts(editor: Editor, model: ir.Model, fixed: set[ir.Value]) -> None:
    """Drop the Casts between the two types that change nothing any more."""
    for graph in iter_graphs(model):
        for node in tuple(graph):
            if node.op_type != "Cast" or node.domain != "":
                continue
            value, result = node.inputs[0], node.outputs[0]
            if result.is_graph_output() or result in fixed or value is None:
                continue
            if element_type(value) == element_type(result) == _WIDE:
                editor.forward(result, value)
                editor.remove(node)
