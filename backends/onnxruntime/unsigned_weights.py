"""Unsigned weights for operators on integers, where signed ones would saturate.

    w s8, zero point z      =      w + 128 u8, zero point z + 128

The runtime does this while it optimizes a graph, if `session.x64quantprecision` is set. A session
without optimizations, such as one that computes a reference, needs it done beforehand.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from irtools.editing import Editor, constant_of
from irtools.model import nested_graphs

__all__ = ["make_weights_unsigned", "unshare_integers"]

_MICROSOFT = "com.microsoft"

_WEIGHT_AND_ZERO = {
    ("", "MatMulInteger"): ((1, 3),),
    ("", "QLinearMatMul"): ((3, 5),),
    ("", "QLinearConv"): ((3, 5),),
    (_MICROSOFT, "QLinearConv"): ((3, 5),),
    (_MICROSOFT, "QGemm"): ((3, 5),),
    (_MICROSOFT, "MatMulIntegerToFloat"): ((1, 5),),
    (_MICROSOFT, "DynamicQuantizeMatMul"): ((1, 3),),
    (_MICROSOFT, "QAttention"): ((1, 7),),
    (_MICROSOFT, "DynamicQuantizeLSTM"): ((1, 9), (2, 11)),
}
_MEASURES_ACTIVATIONS = frozenset({"DynamicQuantizeMatMul", "DynamicQuantizeLSTM"})
_ACTIVATION_ZERO = {"MatMulInteger": 2, "MatMulIntegerToFloat": 4, "QAttention": 6}


def make_weights_unsigned(model: ir.Model) -> int:
    """Rewrite constant s8 weights of products on u8 activations in place.

    Returns:
        Number of nodes that changed.
    """
    editor, changed = Editor(model, "make-weights-unsigned"), 0
    # Functions hold no initializers.
    for node in (node for graph in nested_graphs(model.graph) for node in graph):
        places = _WEIGHT_AND_ZERO.get((node.domain, node.op_type), ())
        if places and _takes_unsigned(node):
            changed += sum(_rewrite(editor, node, weight, zero) for weight, zero in places) > 0
    return changed


def unshare_integers(model: ir.Model) -> None:
    """Give every reader of an int8 constant its own copy, in place.

    ONNX Runtime 1.31 makes weights and zero points unsigned reader by reader, under one name, and
    refuses a model in which two share one.
    """
    editor = Editor(model, "unshare-integers")
    for graph in nested_graphs(model.graph):
        for value in list(graph.initializers.values()):
            tensor = value.const_value
            if tensor is None or tensor.dtype != ir.DataType.INT8 or value.is_graph_output():
                continue
            for number, (node, index) in enumerate(tuple(value.uses())[1:]):
                copy = editor.constant(f"{value.name}_reader_{number}", tensor, graph=graph)
                node.replace_input_with(index, copy)


def _takes_unsigned(node: ir.Node) -> bool:
    """Whether the activations are u8: no kernel takes signed ones with unsigned weights."""
    if node.op_type in _MEASURES_ACTIVATIONS:
        return True
    zero = _input(node, _ACTIVATION_ZERO.get(node.op_type, 2))
    types = {value.dtype for value in (_input(node, 0), zero) if value is not None}
    tensor = None if zero is None else zero.const_value
    return ir.DataType.INT8 not in types and (tensor is None or tensor.dtype != ir.DataType.INT8)


def _rewrite(editor: Editor, node: ir.Node, weight_index: int, zero_index: int) -> bool:
    weight, zero = _constant(_input(node, weight_index)), _input(node, zero_index)
    middle = np.zeros((), np.int8) if zero is None else _constant(zero)
    if weight is None or middle is None:
        return False
    if len(node.inputs) <= zero_index:
        node.resize_inputs(zero_index + 1)
    _set(editor, node, weight_index, weight)
    _set(editor, node, zero_index, middle)
    return True


def _set(editor: Editor, node: ir.Node, index: int, signed: np.ndarray) -> None:
    old, graph = _input(node, index), node.graph
    assert isinstance(graph, ir.Graph)
    stem = (old.name if old is not None else None) or f"{node.name or node.op_type}_zero_point"
    array = np.bitwise_xor(np.ascontiguousarray(signed).view(np.uint8), np.uint8(0x80))
    array = array.reshape(signed.shape)
    node.replace_input_with(index, editor.constant(f"{stem}_unsigned", array, graph=graph))


def _constant(value: ir.Value | None) -> np.ndarray | None:
    tensor = constant_of(value)
    if tensor is None or tensor.dtype != ir.DataType.INT8:
        return None
    return tensor.numpy()


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None
