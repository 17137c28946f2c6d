"""What is quantized already."""

from __future__ import annotations

import onnx_ir as ir

from irtools.editing import constant_of

__all__ = ["QUANTIZED_OPS", "is_expansion", "is_outlier_product", "is_quantized"]

QUANTIZED_OPS = frozenset(
    {
        "MatMulInteger",
        "ConvInteger",
        "QLinearMatMul",
        "QLinearConv",
        "MatMulIntegerToFloat",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "MatMulNBits",
        "QGemm",
        "GatherBlockQuantized",
    }
)

# Operator to the inputs that may be weights of few bits, expanded in front of it.
_EXPANDED_INPUTS = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "DeformConv": (1,),
    "Einsum": (0, 1),
    "GRU": (1, 2),
    "Gather": (0,),
    "Gemm": (0, 1),
    "LSTM": (1, 2),
    "MatMul": (0, 1),
    "RNN": (1, 2),
}

_HALVES = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
_MOST_BITS = 16


def is_quantized(node: ir.Node) -> bool:
    """Whether a node multiplies by, or looks up in, a weight that was quantized before."""
    return node.op_type in QUANTIZED_OPS or _reads_expanded(node) or is_outlier_product(node)


def is_expansion(value: ir.Value | None) -> bool:
    """Whether a value is a constant of few bits times a scale: a DequantizeLinear, or Cast and Mul.

    The Mul may be followed by a Cast to the type of the model.
    """
    node = value.producer() if value is not None else None
    if node is not None and node.op_type == "Cast":
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    if node is None or node.domain != "":
        return False
    if node.op_type == "DequantizeLinear":
        return constant_of(node.inputs[0]) is not None
    if node.op_type != "Mul" or node.inputs[0] is None:
        return False
    value = node.inputs[0]
    while value is not None and (cast := value.producer()) is not None and cast.op_type == "Cast":
        value = cast.inputs[0]
    tensor = constant_of(value) if value is not node.inputs[0] else None
    return tensor is not None and _is_short(tensor.dtype)


def is_outlier_product(node: ir.Node) -> bool:
    """Whether picked channels are multiplied next to a quantization of all of them."""
    picked = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    if node.op_type != "MatMul" or picked is None or picked.op_type != "Gather":
        return False
    whole, places = picked.inputs[:2]
    readers = whole.consumers() if whole is not None else ()
    return constant_of(places) is not None and any(
        reader.op_type == "QuantizeLinear" for reader in readers
    )


def _reads_expanded(node: ir.Node) -> bool:
    if node.domain != "" or node.op_type not in _EXPANDED_INPUTS:
        return False
    places = _EXPANDED_INPUTS[node.op_type]
    found = [_before_transpose(v) for i, v in enumerate(node.inputs) if i in places]
    tensor = constant_of(found[0]) if node.op_type == "Gather" else None
    if tensor is not None:
        return tensor.dtype in (ir.DataType.INT8, ir.DataType.UINT8)
    return any(is_expansion(value) for value in found)


def _is_short(dtype: ir.DataType) -> bool:
    """Whether numbers of a type mean little without a scale: few bits, and not a model's type."""
    return dtype.bitwidth <= _MOST_BITS and dtype not in _HALVES


def _before_transpose(value: ir.Value | None) -> ir.Value | None:
    node = value.producer() if value is not None else None
    is_transpose = node is not None and node.op_type == "Transpose" and node.domain == ""
    return node.inputs[0] if node is not None and is_transpose else value
