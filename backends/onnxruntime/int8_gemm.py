"""Int8 products with their bias in one kernel.

    Add(MatMul(DQ(x), DQ(w)), b)  ->  MatMulIntegerToFloat(x, w, ..., b)

The runtime makes MatMulIntegerToFloat itself, but leaves the Add after it, or, where shapes are
static, first makes a Gemm of MatMul and Add and then computes that in *float* (six times slower
than int8). With the bias inside, both cannot happen. Where the bias is int32 in steps of
s_x * s_w, it becomes float again: the kernel adds it to float sums.

    Relu(MatMul(DQ(x), DQ(w)))  ->  Relu(MatMulIntegerToFloat(x, w, ...))

Where a Relu or Clip follows directly, the runtime (1.31) looks past it for the QuantizeLinear of a
QLinearMatMul. If there is none, or one whose range goes beyond the bounds, so that the clip has to
stay, it computes the product in float.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.editing import (
    Editor,
    Rule,
    Var,
    Veto,
    array_of,
    equal,
    expect_user,
    only_user,
    producer_of,
    require,
    require_array,
)

__all__ = ["Int8BeforeClip", "Int8Bias"]

_DOMAIN, _KERNEL = "com.microsoft", "MatMulIntegerToFloat"


@dataclass(frozen=True)
class _Quantized:
    """An input of a product: integers, and what makes numbers of them."""

    integers: ir.Value
    scale: ir.Value
    zero_point: ir.Value | None


@dataclass(frozen=True)
class _Biased:
    """A product of integers and the Add after it.

    Attributes:
        bias: float32 [N]; where it has to be made, its numbers.
        stored: What is added now.
    """

    x: _Quantized
    w: _Quantized
    add: ir.Node
    bias: ir.Value | np.ndarray
    stored: ir.Value


class Int8Bias(Rule[_Biased]):
    """Add(MatMul(DQ(x), DQ(w)), b)  ->  MatMulIntegerToFloat(x, w, ..., b)

    Needs u8 activations with one scale, constant s8 weights [K, N] symmetric per tensor or per
    column, and a constant bias [N]. An Add that is quantized again is fused all the same.
    """

    name = "int8-gemm-bias"
    anchors = ("MatMul",)

    def find(self, anchor: ir.Node) -> _Biased:
        product = anchor.outputs[0]
        total = expect_user(equal(product) + Var("b"), product, "no bias follows", named=False)
        stored, add = total["b"], total["result"].producer()
        x, w = _operands(anchor)
        bias = _bias(stored, w)
        if bias is None or add is None or add.graph is not anchor.graph:
            raise Veto("not a constant bias per column", named=False)
        return _Biased(x, w, add, bias, stored)

    def build(self, editor: Editor, anchor: ir.Node, found: _Biased) -> None:
        x, w, bias = found.x, found.w, found.bias
        if isinstance(bias, np.ndarray):
            assert isinstance(anchor.graph, ir.Graph)
            bias = editor.constant("bias_f32", bias, graph=anchor.graph)
        inputs = [x.integers, w.integers, x.scale, w.scale, x.zero_point, w.zero_point, bias]
        editor.replace(found.add, _KERNEL, inputs, domain=_DOMAIN, origin=anchor)
        editor.drop_unread(anchor, found.stored)


class Int8BeforeClip(Rule["tuple[_Quantized, _Quantized]"]):
    """Relu(MatMul(DQ(x), DQ(w)))  ->  Relu(MatMulIntegerToFloat(x, w, ...)), and Clip likewise

    where the result is read as float, or its quantization does not clip as well. Needs what
    `Int8Bias` needs of activations and weights.
    """

    name = "int8-gemm-before-clip"
    anchors = ("MatMul",)

    def find(self, anchor: ir.Node) -> tuple[_Quantized, _Quantized]:
        clip = only_user(anchor.outputs[0])
        if clip is None or clip.op_type not in {"Relu", "Clip"} or clip.domain != "":
            raise Veto("neither Relu nor Clip follows", named=False)
        # Then the session makes one QLinearMatMul of all of it.
        require(not _is_implied(clip), "its quantization clips as well", named=False)
        return _operands(anchor)

    def build(self, editor: Editor, anchor: ir.Node, found: tuple[_Quantized, _Quantized]) -> None:
        x, w = found
        sources = [producer_of(value) for value in anchor.inputs]
        inputs = [x.integers, w.integers, x.scale, w.scale, x.zero_point, w.zero_point]
        editor.replace(anchor, _KERNEL, inputs, domain=_DOMAIN)
        editor.drop_unread(*sources)


def _is_implied(clip: ir.Node) -> bool:
    """Whether a Relu or Clip does nothing that the range of the integers after it does not do."""
    reader = only_user(clip.outputs[0])
    if reader is None or reader.op_type != "QuantizeLinear":
        return False
    scale, zero_point, lowest, highest = (
        array_of(node.inputs[index]) if index < len(node.inputs) else None
        for node, index in ((reader, 1), (reader, 2), (clip, 1), (clip, 2))
    )
    if scale is None or scale.size != 1 or zero_point is None:
        return False
    ends = (np.iinfo(zero_point.dtype).min, np.iinfo(zero_point.dtype).max)
    first, last = ((end - int(zero_point.item())) * scale.item() for end in ends)
    low = 0.0 if clip.op_type == "Relu" else -np.inf if lowest is None else lowest.item()
    return bool(low <= first and last <= (np.inf if highest is None else highest.item()))


def _operands(matmul: ir.Node) -> tuple[_Quantized, _Quantized]:
    x, w = _activation(matmul.inputs[0]), _weight(matmul.inputs[1])
    if x is None or w is None:
        raise Veto("not a product of u8 activations and s8 weights", named=False)
    return x, w


def _activation(value: ir.Value | None) -> _Quantized | None:
    found = _dequantized(value)
    if found is None or found.zero_point is None:
        return None
    # The integers themselves often carry no type; the zero point has the same.
    scale, zero_point = array_of(found.scale), array_of(found.zero_point)
    if scale is None or scale.size != 1 or zero_point is None or zero_point.dtype != np.uint8:
        return None
    return found


def _weight(value: ir.Value | None) -> _Quantized | None:
    found = _dequantized(value)
    if found is None:
        return None
    integers, scale = array_of(found.integers), array_of(found.scale)
    if integers is None or integers.dtype != np.int8 or integers.ndim != 2 or scale is None:
        return None
    node = producer_of(value)
    assert node is not None
    axis = node.attributes.get_int("axis", 1) % 2
    if scale.size != 1 and (axis != 1 or scale.shape != (integers.shape[1],)):
        return None
    if found.zero_point is not None:
        zero_point = array_of(found.zero_point)
        if zero_point is None or zero_point.any():
            return None
    return found


def _dequantized(value: ir.Value | None) -> _Quantized | None:
    node = producer_of(value, "DequantizeLinear")
    if node is None:
        return None
    integers, scale, zero_point = [*node.inputs, None][:3]
    if node.attributes.get_int("block_size", 0) or integers is None or scale is None:
        return None
    return _Quantized(integers, scale, zero_point) if _is_float32(scale) else None


def _is_float32(scale: ir.Value) -> bool:
    array = array_of(scale)
    return array is not None and array.dtype == np.float32


def _bias(value: ir.Value, weight: _Quantized) -> ir.Value | np.ndarray | None:
    """Return the bias as a float32 constant [N]: the one there is, or the numbers of a new one."""
    wanted = (require_array(weight.integers).shape[1],)
    array = array_of(value)
    if array is not None:
        return value if array.shape == wanted and array.dtype == np.float32 else None
    quantized = _dequantized(value)
    if quantized is None or quantized.zero_point is not None:
        return None
    integers, scale = array_of(quantized.integers), array_of(quantized.scale)
    if integers is None or scale is None or integers.shape != wanted:
        return None
    return np.asarray(integers.astype(np.float32) * scale)
