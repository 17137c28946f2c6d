"""Type and shape rules of ONNX Runtime's own operators, against what it returns."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from irtools.analysis.shapes import SymbolicShapes
from irtools.analysis.types import element_type
from irtools.model import Model
from irtools.operators import find_op

_HEAD = '<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]> '
_QUANTIZED = "float s = {0.05}, uint8 z = {128}"

CASES = {
    "Gelu": ("float[b,n] x", "y = com.microsoft.Gelu (x)", ""),
    "QuickGelu": ("float[b,n] x", "y = com.microsoft.QuickGelu (x)", ""),
    "BiasGelu": ("float[b,6] x, float[6] c", "y = com.microsoft.BiasGelu (x, c)", ""),
    "FastGelu": ("float[b,6] x, float[6] c", "y = com.microsoft.FastGelu (x, c)", ""),
    "FusedMatMul": (
        "float[b,3,n] x, float[5,n] w",
        "y = com.microsoft.FusedMatMul <transB = 1> (x, w)",
        "",
    ),
    "FusedGemm": (
        "float[b,6] x, float[5,6] w, float[5] c",
        'y = com.microsoft.FusedGemm <transB = 1, activation = "Relu"> (x, w, c)',
        "",
    ),
    "FusedConv": (
        "float[b,4,6,7] x, float[8,4,3,3] w",
        'y = com.microsoft.FusedConv <activation = "Relu", strides = [2, 1]> (x, w)',
        "",
    ),
    "SkipLayerNormalization": (
        "float[b,n,8] x, float[b,n,8] k, float[8] g",
        "y = com.microsoft.SkipLayerNormalization (x, k, g)",
        "",
    ),
    "SkipSimplifiedLayerNormalization": (
        "float[b,n,8] x, float[b,n,8] k, float[8] g",
        "y = com.microsoft.SkipSimplifiedLayerNormalization (x, k, g)",
        "",
    ),
    "Attention": (
        "float[b,n,8] x, float[8,24] w, float[24] c",
        "y = com.microsoft.Attention <num_heads = 2> (x, w, c)",
        "",
    ),
    "MultiHeadAttention": (
        "float[b,n,8] q, float[b,n,8] k, float[b,n,12] v",
        "y = com.microsoft.MultiHeadAttention <num_heads = 2> (q, k, v)",
        "",
    ),
    "DynamicQuantizeMatMul": (
        "float[b,n,8] x, uint8[8,5] w, float s",
        "y = com.microsoft.DynamicQuantizeMatMul (x, w, s)",
        "",
    ),
    "MatMulIntegerToFloat": (
        "uint8[b,n,8] x, uint8[8,5] w, float s, float t",
        "y = com.microsoft.MatMulIntegerToFloat (x, w, s, t)",
        "",
    ),
    "QLinearAdd": (
        "uint8[b,6] x, uint8[6] w",
        "y = com.microsoft.QLinearAdd (x, s, z, w, s, z, s, z)",
        _QUANTIZED,
    ),
    "QLinearMul": (
        "uint8[b,6] x, uint8[6] w",
        "y = com.microsoft.QLinearMul (x, s, z, w, s, z, s, z)",
        _QUANTIZED,
    ),
    "QLinearSigmoid": (
        "uint8[b,6] x",
        "y = com.microsoft.QLinearSigmoid (x, s, z, s, z)",
        _QUANTIZED,
    ),
    "QLinearLeakyRelu": (
        "uint8[b,6] x",
        "y = com.microsoft.QLinearLeakyRelu (x, s, z, s, z)",
        _QUANTIZED,
    ),
    "QGemm": (
        "uint8[b,6] x, uint8[6,5] w",
        "y = com.microsoft.QGemm (x, s, z, w, s, z, , s, z)",
        _QUANTIZED,
    ),
    "QuantizeLinear": ("float[b,6] x", "y = com.microsoft.QuantizeLinear (x, s, z)", _QUANTIZED),
    "DequantizeLinear": (
        "uint8[b,6] x",
        "y = com.microsoft.DequantizeLinear (x, s, z)",
        _QUANTIZED,
    ),
    "EmbedLayerNormalization": (
        "int32[b,n] ids, float[5,8] words, float[9,8] places, float[8] g, float[8] c",
        "y, m = com.microsoft.EmbedLayerNormalization (ids, , words, places, , g, c)",
        "",
    ),
    "Inverse": ("float[b,n,n] x", "y = com.microsoft.Inverse (x)", ""),
    "Trilu": ("float[b,4,4] x", "y = com.microsoft.Trilu (x)", ""),
}
_SIZES = {"b": 2, "n": 3}


@pytest.mark.parametrize("name", CASES)
def test_type_and_shape_are_those_of_the_result(name: str) -> None:
    inputs, body, initializers = CASES[name]
    held = f"<{initializers}>" if initializers else ""
    kinds = {"Quant": "uint8", "QLin": "uint8", "QGemm": "uint8"}
    kind = next((k for start, k in kinds.items() if name.startswith(start)), "float")
    proto = onnx.parser.parse_model(f"{_HEAD} g ({inputs}) => ({kind}[?] y) {held} {{ {body} }}")
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    model = Model.from_proto(proto).ir
    (output,) = model.graph.outputs
    output.type, output.shape = None, None
    expected = run(proto)
    shape = SymbolicShapes.of(model).shape(output)
    assert shape is not None
    assert tuple(_number(dim) for dim in shape) == expected.shape
    dtype = element_type(output)
    assert dtype is not None and dtype.numpy() == expected.dtype
    assert find_op("com.microsoft", name) is not None


def run(proto: onnx.ModelProto) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    data = proto.SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feeds = {}
    for value in session.get_inputs():
        sizes = [_SIZES.get(dim, dim) for dim in value.shape]
        array = rng.normal(0.5, 0.1, sizes)
        is_float = value.type == "tensor(float)"
        integers = np.int32 if value.type == "tensor(int32)" else np.uint8
        feeds[value.name] = array.astype(np.float32 if is_float else integers)
    return np.asarray(session.run(None, feeds)[0])


def _number(dim: object) -> object:
    if isinstance(dim, int):
        return dim
    return sum(f * math.prod(_SIZES[name] for name in names) for names, f in dim.terms)  # type: ignore[attr-defined]
