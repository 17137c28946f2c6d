"""Element types of tensors whose type is not declared."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["element_type"]

_BOOLEAN_OPS = frozenset(
    {"And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual"}
    | {"Not", "Or", "Xor"}
)
_KEEPS_TYPE_OF_INPUT = {
    "Where": 1,
    **dict.fromkeys(
        ("Abs", "Add", "BatchNormalization", "Concat", "Conv", "Div", "Dropout", "Erf", "Exp"), 0
    ),
    **dict.fromkeys(
        ("Expand", "Flatten", "Gather", "GatherND", "Gelu", "Gemm", "Identity", "MatMul", "Max"), 0
    ),
    **dict.fromkeys(
        ("LayerNormalization", "Min", "Mul", "Neg", "Pow", "Range", "ReduceMean", "Relu"), 0
    ),
    **dict.fromkeys(
        ("Reshape", "Sigmoid", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Tanh"), 0
    ),
    **dict.fromkeys(("Transpose", "Unsqueeze", "Attention", "RMSNormalization"), 0),
    **dict.fromkeys(("Cos", "Neg", "Reciprocal", "RotaryEmbedding", "Sin"), 0),
}
"""Operator to the input whose element type its first output has."""

_SAME_TYPE_INPUTS = frozenset({"Add", "Concat", "Conv", "Div", "Gemm", "MatMul", "Mul", "Sub"})
_MAX_DEPTH = 64


def element_type(value: ir.Value | None) -> ir.DataType | None:
    """Return the element type of a tensor: declared, or followed back through the operators.

    None where neither tells; exporters without `value_info` leave most types open.
    """
    for _ in range(_MAX_DEPTH):
        if value is None or value.dtype is not None:
            return None if value is None else value.dtype
        node = value.producer()
        if node is None:
            return None if value.const_value is None else value.const_value.dtype
        if node.domain != "":
            return None
        source = _KEEPS_TYPE_OF_INPUT.get(node.op_type)
        if source is None:
            return _made_type(node)
        value = _typed_input(node) or node.inputs[source]
    return None


def _typed_input(node: ir.Node) -> ir.Value | None:
    """An input that says its type right away, of an operator whose inputs are of one type."""
    if node.op_type not in _SAME_TYPE_INPUTS:
        return None
    return next((v for v in node.inputs if v is not None and v.dtype is not None), None)


def _made_type(node: ir.Node) -> ir.DataType | None:
    if node.op_type == "Cast":
        return ir.DataType(node.attributes["to"].as_int())
    if node.op_type in ("Shape", "Size"):
        return ir.DataType.INT64
    if node.op_type in _BOOLEAN_OPS:
        return ir.DataType.BOOL
    tensor = node.attributes.get("value")
    if node.op_type in ("Constant", "ConstantOfShape") and tensor is not None:
        return tensor.as_tensor().dtype
    return None
