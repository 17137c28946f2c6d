"""The pass `fold-gemm-factors`: what it folds, what it leaves, and the same numbers either way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from irtools.passes.cleanup.gemm import FoldGemmFactors
from irtools.passes.quantization.int4 import Int4
from irtools.passes.quantization.int8 import Int8
from irtools.passmanager import Pass, PassContext
from irtools.testing import read_model

_W = "float[3,2] w = {1,2,3,4,5,6}"
_B = "float[2] b = {0.5,-1.5}"


def _graph(node: str, constants: str = f"{_W}, {_B}", inputs: str = "float[N,3] x") -> str:
    return f"""<ir_version: 10, opset_import: ["" : 20]>
    g ({inputs}) => (float[N,2] y) <{constants}> {{ {node} }}"""


_FOLDED = {
    "weight": _graph("y = Gemm<alpha=0.3>(x, w, b)"),
    "bias": _graph("y = Gemm<beta=-2.5>(x, w, b)"),
    "both": _graph("y = Gemm<alpha=0.125,beta=0.3>(x, w, b)"),
    "turned": _graph("y = Gemm<alpha=0.3,transB=1>(x, w, b)", f"{_W.replace('3,2', '2,3')}, {_B}"),
    "no bias": _graph("y = Gemm<alpha=0.3,beta=0.5>(x, w)", _W),
    "bias of the caller": _graph("y = Gemm<alpha=0.3>(x, w, b)", _W, "float[N,3] x, float[2] b"),
    "nothing is left": _graph("y = Gemm<alpha=0.0>(x, w, b)"),
}
_KEPT = {
    "no factor": _graph("y = Gemm<alpha=1.0,beta=1.0>(x, w, b)"),
    "no factor that counts": _graph("y = Gemm<beta=0.5>(x, w)", _W),
    "bias of the caller, scaled": _graph(
        "y = Gemm<alpha=0.3,beta=0.5>(x, w, b)", _W, "float[N,3] x, float[2] b"
    ),
    "a weight that is read twice": _graph(
        "a = Gemm<alpha=0.3>(x, w, b)  c = MatMul(x, w)  y = Add(a, c)"
    ),
    "beyond the largest float": _graph(
        "y = Gemm<alpha=1e38>(x, w, b)", f"{_W.replace('6}', '60}')}, {_B}"
    ),
}


def _outputs(model: ir.Model, feeds: dict[str, np.ndarray]) -> np.ndarray:
    content = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


@pytest.mark.parametrize("name", _FOLDED)
def test_factors_go_into_constants(name: str, make_context: Callable[[], PassContext]) -> None:
    before, model = (ir.from_onnx_text(_FOLDED[name]) for _ in range(2))
    assert FoldGemmFactors().run(model, make_context()).counters["num-folded-factors"] == 1
    [node] = model.graph
    assert node.op_type == "Gemm" and not {"alpha", "beta"} & node.attributes.keys()
    assert len(model.graph.initializers) == len(before.graph.initializers), "none is left unread"
    feeds = {"x": np.linspace(-1, 2, 12, dtype=np.float32).reshape(4, 3)}
    if len(before.graph.inputs) > 1:
        feeds["b"] = np.float32([1.5, -0.5])
    np.testing.assert_allclose(
        _outputs(model, feeds), _outputs(before, feeds), rtol=1e-6, atol=1e-6
    )
    assert not FoldGemmFactors().run(model, make_context()).modified


@pytest.mark.parametrize("name", _KEPT)
def test_what_cannot_be_folded_stays(name: str, make_context: Callable[[], PassContext]) -> None:
    before, model = (ir.from_onnx_text(_KEPT[name]) for _ in range(2))
    assert not FoldGemmFactors().run(model, make_context()).modified
    assert ir.to_onnx_text(model) == ir.to_onnx_text(before)


@pytest.mark.parametrize("quantize", [Int8(mode="dynamic"), Int4()])
def test_a_scaled_product_is_quantized(
    quantize: Pass, make_context: Callable[[], PassContext]
) -> None:
    rng = np.random.default_rng(0)
    text = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[N,256] x, float[256,256] w, float[256] b) => (float[N,256] y)
    { y = Gemm<alpha=0.125,beta=0.5>(x, w, b) }"""
    weights = {
        n: rng.standard_normal(s).astype(np.float32) for n, s in (("w", (256, 256)), ("b", 256))
    }
    model = read_model(text, weights).ir
    FoldGemmFactors().run(model, make_context())
    assert quantize.run(model, make_context()).modified
    found = {node.op_type for node in model.graph}
    assert found & {"DequantizeLinear", "MatMulInteger", "MatMulNBits"}, found
