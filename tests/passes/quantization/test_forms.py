"""Dynamic, weight-only and embedding forms."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.model.printer import print_model

from .conftest import build, relative_error

DYNAMIC = "int8:mode=dynamic:min-size=0"
WEIGHT_ONLY = "int8:mode=weight-only:min-size=0"


def normal(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


TWO_BY_TWO = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[batch,seq,2] x, float[2,2] w) => (float[batch,seq,2] y) { y = MatMul(x, w) }
"""
WEIGHT = np.array([[1.27, -2.54], [0.5, 0.0]])


def body(model: ir.Model) -> str:
    """The printed nodes, without their labels."""
    lines = print_model(model).splitlines()
    return "\n".join(line.split('  "')[0].strip() for line in lines if " = " in line)


def test_golden_dynamic(quantize) -> None:
    done = quantize(build(TWO_BY_TWO, w=WEIGHT), DYNAMIC, target="ort-cpu:isa=vnni")
    assert body(done.after) == (
        "w_quantized: int8[2, 2] = [127, -127, 50, 0]\n"
        "w_scale: float32[2] = [0.01, 0.02]\n"
        "x_quantized, x_scale, x_zero_point = DynamicQuantizeLinear(x)\n"
        "y_sums = MatMulInteger(x_quantized, w_quantized, x_zero_point)\n"
        "y_float_sums = Cast<to=1>(y_sums)\n"
        "y_step = Mul(x_scale, w_scale)\n"
        "y = Mul(y_float_sums, y_step)"
    )


def test_golden_weight_only(quantize) -> None:
    done = quantize(build(TWO_BY_TWO, w=WEIGHT), WEIGHT_ONLY)
    assert body(done.after) == (
        "w_quantized: int8[2, 2] = [127, -127, 50, 0]\n"
        "w_scale: float32[2] = [0.01, 0.02]\n"
        "w_dequantized = DequantizeLinear<axis=1>(w_quantized, w_scale)\n"
        "y = MatMul(x, w_dequantized)"
    )


def test_golden_embedding(quantize) -> None:
    model = build(
        """
        <ir_version: 10, opset_import: ["" : 12]>
        g (int64[n] ids, float[2,2] w) => (float[n,2] y) { y = Gather(w, ids) }
        """,
        w=WEIGHT,
    )
    done = quantize(model, "int8:min-size=0")
    assert body(done.after) == (
        "w_quantized: int8[2, 2] = [64, -127, 127, 0]\n"
        "w_scale: float32[2, 1] = [0.02, 0.003937008]\n"
        "y_quantized = Gather(w_quantized, ids)\n"
        "y_scale = Gather(w_scale, ids)\n"
        "y_integers = Cast<to=1>(y_quantized)\n"
        "y = Mul(y_integers, y_scale)"
    )
    assert done.after.graph.opset_imports[""] == 12


FFN = """
<ir_version: 10, opset_import: ["" : 20]>
ffn (float[batch,seq,32] x, float[32,64] w1, float[64] w_b1, float[64,32] w2, float[32] w_b2)
=> (float[batch,seq,32] y) {
  h = MatMul(x, w1)
  a = Add(h, w_b1)
  g = Gelu(a)
  o = MatMul(g, w2)
  y = Add(o, w_b2)
}
"""


def test_dynamic_fuses_with_its_bias_on_onnx_runtime(quantize, outputs, kernels) -> None:
    model = build(FFN)
    done = quantize(model, DYNAMIC)
    found = kernels(done.after)
    assert found["DynamicQuantizeMatMul"] == 2 and not found["Add"], found
    x = normal(3, 7, 32)
    for exact in (True, False):
        assert relative_error(outputs(done.after, exact=exact, x=x), outputs(model, x=x)) < 0.02


def test_dynamic_measures_a_shared_activation_once(quantize, kernels) -> None:
    model = build("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[batch,seq,8] x, float[8,8] w_q, float[8,8] w_k) => (float[batch,seq,8] y)
        { q = MatMul(x, w_q)  k = MatMul(x, w_k)  y = Mul(q, k) }
    """)
    done = quantize(model, DYNAMIC)
    assert done.operators["DynamicQuantizeLinear"] == 1
    assert kernels(done.after)["MatMulIntegerToFloat"] == 2


@pytest.mark.parametrize("text", [
    "g (float[n,8] x, float[4,8] w, float[4] w_b) => (float[n,4] y) { y=Gemm<transB=1>(x,w,w_b) }",
    "g (float[n,8] x, float[4,8] w, float[1,4] w_b) => (float[n,4] y) {y=Gemm<transB=1>(x,w,w_b)}",
    "g (float[n,8] x, float[8,4] w) => (float[n,4] y) { y = Gemm(x, w) }",
    "g (float[n,8] x, float[4,8] w) => (float[n,4] y) { t = Transpose(w) y = MatMul(x, t) }",
])  # fmt: skip
@pytest.mark.parametrize("pipeline", [DYNAMIC, WEIGHT_ONLY, f"{WEIGHT_ONLY}:block-size=16"])
def test_every_layout_of_a_weight(quantize, outputs, text: str, pipeline: str) -> None:
    model = build(f'<ir_version: 10, opset_import: ["" : 21]> {text}')
    done = quantize(model, pipeline)
    assert done.result.counters["num-quantized-matmul"] == 1
    assert done.after.graph.initializers["w_quantized"].shape == (8, 4)
    x = normal(5, 8)
    assert relative_error(outputs(done.after, x=x), outputs(model, x=x)) < 0.02


def test_a_dead_activation_in_dynamic_form(quantize, outputs) -> None:
    model = build(FFN)
    done = quantize(model, DYNAMIC)
    x = np.zeros((1, 3, 32), np.float32)
    for exact in (True, False):
        found = outputs(done.after, exact=exact, x=x)
        assert relative_error(found, outputs(model, x=x)) < 0.02


@pytest.mark.parametrize("pipeline", [WEIGHT_ONLY, f"{WEIGHT_ONLY}:block-size=32"])
def test_weight_only_becomes_a_compressed_product(quantize, kernels, pipeline: str) -> None:
    found = kernels(quantize(build(FFN), pipeline).after)
    assert found["MatMulNBits"] == 2 and not found["DequantizeLinear"], found


@pytest.mark.openvino
def test_weight_only_keeps_integers_on_openvino(quantize, outputs, openvino_layers) -> None:
    model = build(FFN)
    done = quantize(model, WEIGHT_ONLY)
    x = normal(2, 3, 32)
    found, layers = openvino_layers(done.after, x=x)
    assert relative_error(found, outputs(done.after, x=x)) < 1e-5
    assert layers["FullyConnected[i8]"] + layers["FullyConnected[f32]"] == 2


def test_blocks_raise_the_opset_and_say_so(quantize) -> None:
    done = quantize(build(FFN), f"{WEIGHT_ONLY}:block-size=32")
    assert done.after.graph.opset_imports[""] == 21
    assert done.result.notes == ("opset raised from 20 to 21",)
    assert quantize(build(FFN), WEIGHT_ONLY).after.graph.opset_imports[""] == 20


EMBEDDING = """
<ir_version: 10, opset_import: ["" : 20]>
g (int64[batch,seq] ids, float[300,16] w) => (float[batch,seq,16] y) { y = Gather(w, ids) }
"""


def test_an_embedding_is_gathered_in_int8(quantize, outputs, kernels) -> None:
    """DequantizeLinear in front of a Gather expands the whole table at each run."""
    model = build(EMBEDDING)
    done = quantize(model, "int8:min-size=0")
    found = kernels(done.after)
    assert found == {"Gather": 2, "Cast": 1, "Mul": 1}
    ids = np.random.default_rng(0).integers(0, 300, (2, 5))
    rows = outputs(model, ids=ids)
    limit = np.abs(rows).max(axis=-1, keepdims=True) / 127 / 2
    for exact in (True, False):
        assert (np.abs(outputs(done.after, exact=exact, ids=ids) - rows) <= limit * 1.001).all()


@pytest.mark.openvino
def test_an_embedding_is_gathered_in_int8_on_openvino(quantize, openvino_layers, outputs) -> None:
    done = quantize(build(EMBEDDING), "int8:min-size=0")
    ids = np.random.default_rng(0).integers(0, 300, (2, 5))
    found, layers = openvino_layers(done.after, ids=ids)
    np.testing.assert_allclose(found, outputs(done.after, ids=ids), rtol=1e-6)
    assert layers["Gather[i8]"] == 1


@pytest.mark.parametrize("text", [
    "g (int64[n] i, int64[9,4] w) => (int64[n,4] y) { y = Gather(w, i) }",
    "g (int64[n] i, float[9] w) => (float[n] y) { y = Gather(w, i) }",
])  # fmt: skip
def test_other_lookups_are_left_alone(quantize, text: str) -> None:
    model = build(f'<ir_version: 10, opset_import: ["" : 20]> {text}')
    assert not quantize(model, "int8:min-size=0").result.modified


def test_row_scales_are_no_table_to_quantize(quantize) -> None:
    """Their own scales would be as large; and a second run must change nothing."""
    once = quantize(build(EMBEDDING), "int8:min-size=0")
    twice = quantize(once.after, "int8:min-size=0")
    assert not twice.result.modified
    assert twice.result.counters == {"num-already-quantized": 1}


def test_a_lookup_that_is_an_output_keeps_its_name(quantize) -> None:
    done = quantize(build(EMBEDDING), "int8:min-size=0")
    assert [value.name for value in done.after.graph.outputs] == ["y"]
