"""Int8 products with their bias in one kernel.

    Add(MatMul(DQ(x), DQ(w)), b)  ->  MatMulIntegerToFloat(x, w, ..., b)

The runtime makes MatMulIntegerToFloat itself, but leaves the Add beside it, or, where shapes are
static, first makes a Gemm of MatMul and Add and then computes that in *float* (six times slower
than int8). With the bias inside, both cannot happen. Where the bias is int32 in steps of
s_x * s_w, it becomes float again: the kernel adds it to float sums.

    Relu(MatMul(DQ(x), DQ(w)))  ->  Relu(MatMulIntegerToFloat(x, w, ...))

Where a Relu or Clip follows at once and is not quantized again, the runtime (1.31) looks behind
it for the QuantizeLinear of a QLinearMatMul, finds none, and computes the product in float.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.backends.onnxruntime._editing import (
    constant_array,
    only_user,
    remove_unused,
    replace_node,
)
from irtools.model.naming import FreshNames

__all__ = ["fuse_int8_before_clip", "fuse_int8_bias"]


@dataclass(frozen=True)
class _Quantized:
    """An input of a product: integers, and what makes numbers of them."""

    integers: ir.Value
    scale: ir.Value
    zero_point: ir.Value | None


def fuse_int8_bias(matmul: ir.Node, names: FreshNames) -> bool:
    """Rewrite one MatMul and the Add behind it; False where they do not have that form.

    Needs u8 activations with one scale, constant s8 weights [K, N] symmetric per tensor or per
    column, and a constant bias [N]. An Add that is quantized again is fused all the same.

    Args:
        matmul: Where to start.
        names: Names the bias, if it has to be made.
    """
    if matmul.op_type != "MatMul" or matmul.domain != "" or len(matmul.inputs) != 2:
        return False
    add = only_user(matmul.outputs[0])
    if add is None or add.op_type != "Add" or add.domain != "" or add.graph is not matmul.graph:
        return False
    x, w = _activation(matmul.inputs[0]), _weight(matmul.inputs[1])
    other = add.inputs[1 - int(add.inputs[1] is matmul.outputs[0])]
    bias = None if w is None or other is None else _bias(other, w)
    if x is None or w is None or bias is None:
        return False
    if bias is not other:
        assert matmul.graph is not None
        bias.name = names.make("bias_f32")
        matmul.graph.register_initializer(bias)
    inputs = [x.integers, w.integers, x.scale, w.scale, x.zero_point, w.zero_point, bias]
    replace_node(add, "MatMulIntegerToFloat", inputs, domain="com.microsoft", source=matmul)
    remove_unused(matmul)
    if other is not bias:
        remove_unused(other.producer() if other is not None else None)
    return True


def fuse_int8_before_clip(matmul: ir.Node) -> bool:
    """Rewrite one MatMul before a Relu or Clip whose result is read as float; else False.

    Needs what `fuse_int8_bias` needs of activations and weights.
    """
    if matmul.op_type != "MatMul" or matmul.domain != "" or len(matmul.inputs) != 2:
        return False
    clip = only_user(matmul.outputs[0])
    if clip is None or clip.op_type not in {"Relu", "Clip"} or clip.domain != "":
        return False
    reader = only_user(clip.outputs[0])
    if reader is not None and reader.op_type == "QuantizeLinear":
        return False  # The session makes one QLinearMatMul of all of it.
    x, w = _activation(matmul.inputs[0]), _weight(matmul.inputs[1])
    if x is None or w is None:
        return False
    sources = [value.producer() for value in matmul.inputs if value is not None]
    inputs = [x.integers, w.integers, x.scale, w.scale, x.zero_point, w.zero_point]
    replace_node(matmul, "MatMulIntegerToFloat", inputs, domain="com.microsoft")
    for source in sources:
        remove_unused(source)
    return True


def _activation(value: ir.Value | None) -> _Quantized | None:
    found = _dequantized(value)
    if found is None or found.zero_point is None:
        return None
    # The integers themselves often carry no type; the zero point has the same.
    scale, zero_point = constant_array(found.scale), constant_array(found.zero_point)
    if scale is None or scale.size != 1 or zero_point is None or zero_point.dtype != np.uint8:
        return None
    return found


def _weight(value: ir.Value | None) -> _Quantized | None:
    found = _dequantized(value)
    if found is None:
        return None
    integers, scale = constant_array(found.integers), constant_array(found.scale)
    if integers is None or integers.dtype != np.int8 or integers.ndim != 2 or scale is None:
        return None
    node = value.producer() if value is not None else None
    assert node is not None
    axis = node.attributes.get_int("axis", 1) % 2
    if scale.size != 1 and (axis != 1 or scale.shape != (integers.shape[1],)):
        return None
    if found.zero_point is not None:
        zero_point = constant_array(found.zero_point)
        if zero_point is None or zero_point.any():
            return None
    return found


def _dequantized(value: ir.Value | None) -> _Quantized | None:
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "DequantizeLinear" or node.domain != "":
        return None
    integers, scale, zero_point = [*node.inputs, None][:3]
    if node.attributes.get_int("block_size", 0) or integers is None or scale is None:
        return None
    return _Quantized(integers, scale, zero_point) if _is_float32(scale) else None


def _is_float32(scale: ir.Value) -> bool:
    array = constant_array(scale)
    return array is not None and array.dtype == np.float32


def _bias(value: ir.Value, weight: _Quantized) -> ir.Value | None:
    """Return the bias as a float32 constant [N]: the one there is, or a new one without name."""
    columns = constant_array(weight.integers)
    assert columns is not None
    wanted = (columns.shape[1],)
    array = constant_array(value)
    if array is not None:
        return value if array.shape == wanted and array.dtype == np.float32 else None
    quantized = _dequantized(value)
    if quantized is None or quantized.zero_point is not None:
        return None
    integers, scale = constant_array(quantized.integers), constant_array(quantized.scale)
    if integers is None or scale is None or integers.shape != wanted:
        return None
    numbers = integers.astype(np.float32) * scale
    return ir.val(None, ir.DataType.FLOAT, wanted, const_value=ir.tensor(numbers))
