"""Forms that OpenVINO's importer or its CPU plug-in refuses, as operators that they take.

    Squeeze(x [n, 1])         ->  Squeeze(x, axes = [1])    where the model declares the rank of y
    Scaler(x, offset, scale)  ->  Mul(Sub(x, offset), scale)

A Squeeze that names no axes drops those of size 1, whose number is not known where a size is open.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.backends.openvino.narrow import has_narrow, widen_codes
from irtools.editing import Editor
from irtools.model import Model, opset_of

__all__ = ["make_readable", "readable"]

_AXES_AS_INPUT = 13


def readable(model: Model) -> Model:
    """Return a model that OpenVINO can read: itself, or a copy in other forms."""
    if not has_narrow(model.ir) and not any(map(_is_foreign, model.ir.graph)):
        return model
    copy = model.clone()
    widen_codes(copy.ir)
    make_readable(copy.ir)
    return copy


def make_readable(model: ir.Model) -> int:
    """Rewrite such operators of the main graph, in place; returns how many there were."""
    found = [node for node in model.graph if _is_foreign(node)]
    if not found:
        return 0
    editor, facts = Editor(model, "lower"), SymbolicShapes.of(model)
    return sum(
        _expand_scaler(editor, node)
        if node.op_type == "Scaler"
        else _name_axes(editor, node, facts, opset_of(model))
        for node in found
    )


def _is_foreign(node: ir.Node) -> bool:
    if node.domain == "ai.onnx.ml":
        return node.op_type == "Scaler" and node.inputs[0] is not None
    return (
        node.op_type == "Squeeze"
        and node.domain == ""
        and len([value for value in node.inputs if value is not None]) == 1
        and "axes" not in node.attributes
        and node.outputs[0].shape is not None
    )


def _name_axes(editor: Editor, node: ir.Node, facts: SymbolicShapes, opset: int) -> int:
    shape, declared = facts.shape(node.inputs[0]), node.outputs[0].shape
    if shape is None or declared is None:
        return 0
    ones = [axis for axis, size in enumerate(shape) if size == 1]
    if not ones or len(shape) - len(ones) != len(declared):
        return 0
    if opset < _AXES_AS_INPUT:
        editor.replace(node, "Squeeze", node.inputs[:1], {"axes": ones})
    else:
        axes = editor.constant("axes", np.array(ones, np.int64))
        editor.replace(node, "Squeeze", [node.inputs[0], axes])
    return 1


def _expand_scaler(editor: Editor, node: ir.Node) -> int:
    (x,) = node.inputs
    assert x is not None
    if x.dtype != ir.DataType.FLOAT:
        return 0
    offset, scale = (
        np.array(node.attributes.get_floats(name) or default, np.float32)
        for name, default in (("offset", [0.0]), ("scale", [1.0]))
    )
    shifted = editor.before(node, "Sub", [x, editor.constant("offset", offset)])
    editor.replace(node, "Mul", [shifted, editor.constant("scale", scale)])
    return 1
