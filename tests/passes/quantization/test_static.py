"""Static int8: where it fires, where it must not, and the traps of the runtimes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.analysis.saturation import may_saturate
from irtools.model.printer import print_model

from .conftest import build, context, relative_error, session

STATIC = "int8:mode=static:min-size=0"

FFN = """
<ir_version: 10, opset_import: ["" : 20]>
ffn (float[batch,seq,16] x, float[16,32] w1, float[32] w_b1, float[32,16] w2, float[16] w_b2)
=> (float[batch,seq,16] y) {
  h = MatMul(x, w1)
  a = Add(h, w_b1)
  g = Gelu(a)
  o = MatMul(g, w2)
  y = Add(o, w_b2)
}
"""


def normal(*shape: int, seed: int = 1) -> np.ndarray:
    """Normal values cut at 2, so that fresh data stays inside calibrated ranges."""
    return np.random.default_rng(seed).normal(size=shape).clip(-2, 2).astype(np.float32)


def test_golden_matmul(quantize) -> None:
    model = build(
        """
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[batch,seq,2] x, float[2,2] w) => (float[batch,seq,2] y) { y = MatMul(x, w) }
        """,
        w=np.array([[1.27, -2.54], [0.5, 0.0]]),
    )
    x = np.array([[[-1.0, 4.1]]], np.float32)
    done = quantize(model, STATIC, target="ort-cpu:isa=vnni", x=x)
    assert print_model(done.after) == (
        "ir 10, opset 20\n"
        "graph (x: float32[batch, seq, 2]) -> (y: float32[batch, seq, 2])\n"
        "  w_quantized: int8[2, 2] = [127, -127, 50, 0]\n"
        "  w_scale: float32[2] = [0.01, 0.02]\n"
        "  x_scale: float32[] = 0.02\n"
        "  x_zero_point: uint8[] = 50\n"
        '  x_quantized = QuantizeLinear(x, x_scale, x_zero_point)  "x_quantized/QuantizeLinear"\n'
        "  x_dequantized = DequantizeLinear(x_quantized, x_scale, x_zero_point)  "
        '"x_dequantized/DequantizeLinear"\n'
        "  w_dequantized = DequantizeLinear<axis=1>(w_quantized, w_scale)  "
        '"w_dequantized/DequantizeLinear"\n'
        "  y = MatMul(x_dequantized, w_dequantized)\n"
    )
    assert done.result.counters == {"num-quantized-matmul": 1}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("g (float[m,4] x, float[4,4] v) => (float[m,4] y) { y = MatMul(x, v) }", None),
        ("g (bfloat16[m,4] x, bfloat16[4,4] w) => (bfloat16[m,4] y) { y = MatMul(x, w) }",
         "num-skipped-dtype"),
        ("g (float[m,4] x, float[4,4] w) => (float[m,4] y, float[4,4] z) "
         "{ y = MatMul(x, w) z = Neg(w) }", "num-skipped-shared"),
    ],
)  # fmt: skip
def test_left_alone(quantize, text: str, reason: str | None) -> None:
    model = build(f'<ir_version: 10, opset_import: ["" : 20]> {text}')
    done = quantize(model, STATIC, x=normal(4, 4))
    assert not done.result.modified
    assert print_model(done.after) == print_model(model)
    assert done.result.counters == ({reason: 1} if reason else {})


def test_numbers_on_onnx_runtime(quantize, outputs, kernels) -> None:
    model = build(FFN)
    done = quantize(model, STATIC, x=normal(8, 10, 16))
    x = normal(3, 7, 16, seed=2)
    wanted = outputs(model, x=x)
    assert relative_error(outputs(done.after, x=x), wanted) < 0.015
    assert relative_error(outputs(done.after, exact=False, x=x), wanted) < 0.015
    found = kernels(done.after)
    assert found["MatMulIntegerToFloat"] == 2
    assert not found["MatMul"] and not found["DequantizeLinear"] and not found["Gemm"]


@pytest.mark.openvino
def test_the_same_file_is_int8_on_openvino(quantize, outputs, openvino_layers) -> None:
    model = build(FFN)
    done = quantize(model, STATIC, x=normal(8, 10, 16))
    x = normal(3, 7, 16, seed=2)
    found, layers = openvino_layers(done.after, x=x)
    assert relative_error(found, outputs(done.after, x=x)) < 0.01
    assert layers["FullyConnected[u8]"] == 2


def test_trap_a_static_shapes_keep_int8(quantize, outputs, kernels) -> None:
    """MatMulAddFusion makes a float Gemm of a float bias where the rows can be counted."""
    text = FFN.replace("batch,seq", "1,64")
    model = build(text)
    done = quantize(model, STATIC, x=normal(1, 64, 16))
    assert done.operators["DequantizeLinear"] == 6  # activations, weights, biases
    found = kernels(done.after)
    assert found["QGemm"] + found["MatMulIntegerToFloat"] == 2, found
    assert not found["Gemm"] and not found["MatMul"], found
    x = normal(1, 64, 16, seed=2)
    assert relative_error(outputs(done.after, exact=False, x=x), outputs(model, x=x)) < 0.015


def test_trap_a_is_real(kernels) -> None:
    """With a float bias at a static shape the runtime still falls back to float.

    Where this fails the runtime has been mended, and `becomes_gemm` can go.
    """
    model = build(
        """
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[1,64,16] x, float[] ws, uint8[] wz, int8[16,16] w, float[16] w_s, float[16] w_b)
        => (float[1,64,16] y) {
          q = QuantizeLinear(x, ws, wz)
          d = DequantizeLinear(q, ws, wz)
          e = DequantizeLinear<axis=1>(w, w_s)
          m = MatMul(d, e)
          y = Add(m, w_b)
        }
        """,
        ws=np.array(0.1), wz=np.array(128), w=np.ones((16, 16)), w_s=np.full(16, 0.1),
    )  # fmt: skip
    found = kernels(model)
    assert found["Gemm"] == 1 and not found["MatMulIntegerToFloat"] and not found["QGemm"]


def test_dynamic_rows_keep_a_float_bias(quantize) -> None:
    done = quantize(build(FFN), "int8:mode=static:min-size=0:bias-correction=false",
                    x=normal(2, 4, 16))  # fmt: skip
    assert done.operators["DequantizeLinear"] == 4
    assert {"w_b1", "w_b2"} <= set(done.after.graph.initializers)


@pytest.mark.parametrize("target", ["ort-cpu", "openvino-cpu"])
def test_trap_b_activations_are_u8(quantize, target: str) -> None:
    """s8 activations with a Transpose behind them do not load at opset 21 (onnxruntime #25526)."""
    model = build("""
        <ir_version: 10, opset_import: ["" : 21]>
        g (float[batch,16,seq] x, float[16,8] w) => (float[batch,seq,8] y) {
          t = Transpose<perm=[0,2,1]>(x)
          y = MatMul(t, w)
        }
    """)
    done = quantize(model, STATIC, target=target, x=normal(2, 16, 5))
    zeros = [v.const_value for k, v in done.after.graph.initializers.items() if "zero_point" in k]
    assert [tensor.dtype for tensor in zeros] == [ir.DataType.UINT8]
    session(done.after, exact=False).run(None, {"x": normal(2, 16, 5)})


def test_only_standard_operators_and_no_qoperators(quantize) -> None:
    """QOperator S8S8 destroys accuracy on x64 and blocks fusions (onnxruntime #12072)."""
    done = quantize(build(FFN), STATIC, x=normal(2, 4, 16))
    assert {node.domain for node in done.after.graph} == {""}
    assert set(done.operators) == {"QuantizeLinear", "DequantizeLinear", "MatMul", "Add", "Gelu"}


def test_nothing_is_quantized_behind_a_gemm_or_around_float_ops(quantize) -> None:
    done = quantize(build(FFN), STATIC, x=normal(2, 4, 16))
    read_by = {
        node.inputs[0].name
        for node in done.after.graph
        if node.op_type == "QuantizeLinear" and node.inputs[0] is not None
    }
    assert read_by == {"x", "g"}


def test_one_pair_is_shared_and_the_residual_stays_float(quantize, outputs, kernels) -> None:
    model = build("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[batch,seq,8] x, float[8] w_g, float[8,8] w_q, float[8,8] w_k)
        => (float[batch,seq,8] y) {
          n = LayerNormalization<axis=-1>(x, w_g)
          q = MatMul(n, w_q)
          k = MatMul(n, w_k)
          s = Mul(q, k)
          y = Add(s, n)
        }
    """)
    done = quantize(model, STATIC, x=normal(4, 6, 8))
    assert done.operators["QuantizeLinear"] == 1
    (residual,) = [node for node in done.after.graph if node.op_type == "Add"]
    assert [value.name for value in residual.inputs if value] == ["s", "n"]
    assert kernels(done.after)["MatMulIntegerToFloat"] == 2
    x = normal(2, 3, 8, seed=3)
    assert relative_error(outputs(done.after, x=x), outputs(model, x=x)) < 0.03


GEMM = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n,8] x, float[4,8] w, float[4] w_b) => (float[n,4] y) { y = Gemm<transB=1>(x, w, w_b) }
"""


def test_gemm_with_trans_b(quantize, outputs, kernels) -> None:
    model = build(GEMM)
    done = quantize(model, STATIC, x=normal(32, 8))
    assert kernels(done.after)["QGemm"] == 1
    x = normal(5, 8, seed=2)
    for exact in (True, False):
        assert relative_error(outputs(done.after, exact=exact, x=x), outputs(model, x=x)) < 0.02


def test_a_transposed_weight_is_folded_to_rows_by_columns(quantize, outputs, kernels) -> None:
    model = build("""
        <ir_version: 10, opset_import: ["" : 17]>
        g (float[batch,seq,8] x, float[4,8] w) => (float[batch,seq,4] y) {
          t = Transpose(w)
          y = MatMul(x, t)
        }
    """)
    done = quantize(model, STATIC, x=normal(4, 6, 8))
    assert done.operators["Transpose"] == 0
    assert done.after.graph.initializers["w_quantized"].shape == (8, 4)
    assert kernels(done.after)["MatMulIntegerToFloat"] == 1
    x = normal(2, 3, 8, seed=3)
    assert relative_error(outputs(done.after, x=x), outputs(model, x=x)) < 0.02


def test_a_shared_weight_is_quantized_once(quantize) -> None:
    model = build("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[batch,seq,8] x, float[8,8] w) => (float[batch,seq,8] y) {
          a = MatMul(x, w)
          b = Gelu(a)
          y = MatMul(b, w)
        }
    """)
    done = quantize(model, STATIC, x=normal(4, 6, 8))
    weights = [v for v in done.after.graph.initializers.values() if v.shape == (8, 8)]
    assert [w.name for w in weights] == ["w_quantized"]
    assert len(done.result.plan.decisions) == 1
    assert done.result.counters["num-quantized-matmul"] == 2


def test_a_tied_table_stays_tied(quantize, outputs, kernels) -> None:
    model = build("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (int64[batch,seq] ids, float[40,8] w) => (float[batch,seq,40] y) {
          h = Gather(w, ids)
          g = Gelu(h)
          t = Transpose<perm=[1,0]>(w)
          y = MatMul(g, t)
        }
    """)
    ids = np.random.default_rng(0).integers(0, 40, (6, 5))
    done = quantize(model, STATIC, ids=ids)
    tables = [v for v in done.after.graph.initializers.values() if v.shape == (40, 8)]
    assert [t.dtype for t in tables] == [ir.DataType.INT8]
    assert relative_error(outputs(done.after, ids=ids), outputs(model, ids=ids)) < 0.02
    assert kernels(done.after)["MatMulIntegerToFloat"] == 1


def test_weights_in_constant_nodes(quantize) -> None:
    model = build("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[n,2] x) => (float[n,2] y) {
          w = Constant <value = float[2,2] {1.0, 2.0, 3.0, 4.0}> ()
          y = MatMul(x, w)
        }
    """)
    done = quantize(model, STATIC, x=normal(4, 2))
    assert done.operators["Constant"] == 0
    assert done.after.graph.initializers["w_quantized"].dtype == ir.DataType.INT8


def test_overridable_weights_stay_inputs(quantize) -> None:
    model = build("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[n,4] x, float[4,4] w) => (float[n,4] y) { y = MatMul(x, w) }
    """)
    model.graph.inputs.append(model.graph.initializers["w"])
    assert not quantize(model, STATIC, x=normal(4, 4)).result.modified


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_weights_are_named_and_kept(quantize, bad: float) -> None:
    w = np.ones((4, 4))
    w[1, 2] = bad
    model = build(
        """
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[n,4] x, float[4,4] w, float[4,4] w_good) => (float[n,4] y)
        { a = MatMul(x, w)  y = MatMul(a, w_good) }
        """,
        w=w,
    )
    done = quantize(model, "int8:mode=dynamic:min-size=0")
    assert done.result.counters["num-skipped-nonfinite"] == 1
    assert done.result.counters["num-quantized-matmul"] == 1
    assert any("'w' holds NaN or infinity" in note for note in done.result.notes)


def test_weights_near_the_float_limit_are_kept(quantize) -> None:
    model = build(GEMM, w=np.full((4, 8), 3e38))
    done = quantize(model, STATIC, x=normal(8, 8))
    assert done.result.counters["num-skipped-extreme"] == 1


def test_a_dead_activation_is_left_alone(quantize) -> None:
    done = quantize(build(GEMM), STATIC, x=np.zeros((4, 8), np.float32))
    assert done.result.counters["num-skipped-range"] == 1
    assert "'x' has no usable range: it never left zero" in done.result.notes


def test_dead_channels_and_tiny_weights_divide_by_nothing(quantize, outputs) -> None:
    w = np.random.default_rng(0).normal(size=(4, 8))
    w[1] = 0
    w[2] *= 1e-30
    model = build(GEMM, w=w)
    done = quantize(model, STATIC, x=normal(32, 8))
    found = outputs(done.after, exact=False, x=normal(4, 8, seed=2))
    assert relative_error(found, outputs(model, x=normal(4, 8, seed=2))) < 0.02


def test_a_large_bias_over_a_tiny_weight_does_not_overflow(quantize, outputs) -> None:
    w = np.full((4, 8), 1e-9)
    model = build(GEMM, w=w, w_b=np.array([5.0, -5.0, 100.0, 0.0]))
    done = quantize(model, STATIC, x=normal(32, 8))
    x = normal(4, 8, seed=2)
    for exact in (True, False):
        np.testing.assert_allclose(
            outputs(done.after, exact=exact, x=x), outputs(model, x=x), atol=1e-5
        )


def test_nan_in_an_activation_is_said(quantize) -> None:
    model = build("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[b,n,8] x, float[8,4] w) => (float[b,n,4] y) { l = Log(x)  y = MatMul(l, w) }
    """)
    done = quantize(model, STATIC, x=normal(2, 3, 8))
    assert done.result.counters["num-skipped-range"] == 1
    assert "'l' has no usable range: NaN or infinite values" in done.result.notes


def test_softmax_outputs_cover_the_unit_interval(quantize) -> None:
    """One-sided ranges ruined BERT: 92.1 to 5.8 F1 (onnxruntime #10571)."""
    model = build("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[b,n,8] x, float[8,4] w) => (float[b,n,4] y) { p = Softmax(x)  y = MatMul(p, w) }
    """)
    done = quantize(model, STATIC, x=normal(4, 6, 8))
    initializers = done.after.graph.initializers
    assert initializers["p_scale"].const_value.numpy() == np.float32(1 / 255)
    assert initializers["p_zero_point"].const_value.numpy() == 0


@pytest.mark.parametrize("isa", ["sse", "avx2", "avx512", "vnni", "amx", "arm", "arm-dot"])
def test_the_range_of_weights_follows_the_instruction_set(quantize, isa: str) -> None:
    done = quantize(build(FFN), STATIC, target=f"ort-cpu:isa={isa}", x=normal(2, 4, 16))
    tables = [
        v.const_value.numpy()
        for name, v in done.after.graph.initializers.items()
        if name in ("w1_quantized", "w2_quantized")
    ]
    saturates = isa in ("sse", "avx2", "avx512")
    assert any(may_saturate(table, 1) for table in tables) != saturates
    if not saturates:
        assert all((np.abs(table.astype(int)).max(axis=0) == 127).all() for table in tables)
    assert any("16 bits" in note for note in done.result.notes) == saturates


@pytest.mark.parametrize("calibrator", ["minmax", "mse", "percentile", "entropy"])
def test_calibrators(quantize, outputs, calibrator: str) -> None:
    model = build(FFN)
    done = quantize(model, f"{STATIC}:calibrator={calibrator}", x=normal(16, 16, 16))
    x = normal(3, 7, 16, seed=2)
    assert relative_error(outputs(done.after, x=x), outputs(model, x=x)) < 0.05


def test_bias_correction_removes_the_mean_error(quantize, outputs) -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[b,n,64] x, float[64,32] w, float[32] w_b) => (float[b,n,32] y)
    { m = MatMul(x, w)  y = Add(m, w_b) }
    """
    model = build(text)
    x = normal(8, 64, 64) * 0.1 + 3.0  # a mean far from zero, as behind GELU
    wanted = outputs(model, x=x)

    def bias_of_error(flag: str) -> float:
        done = quantize(model, f"{STATIC}:reduce-range=true:bias-correction={flag}", x=x)
        return float(np.abs((outputs(done.after, x=x) - wanted).mean(axis=(0, 1))).max())

    assert bias_of_error("true") < 0.3 * bias_of_error("false")


CONV = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[b,4,8,8] x, float[8,4,3,3] w1, float[8] w_b1, float[8,1,3,3] w2, float[8,8,1,1] w3)
=> (float[b,8,8,8] y) {
  a = Conv<pads=[1,1,1,1]>(x, w1, w_b1)
  r = Relu(a)
  d = Conv<pads=[1,1,1,1], group=8>(r, w2)
  s = Conv(r, w3)
  t = Add(d, s)
  y = Relu(t)
}
"""


def test_convolutions_run_in_integers(quantize, outputs, kernels) -> None:
    model = build(CONV)
    done = quantize(model, STATIC, x=normal(8, 4, 8, 8))
    assert done.result.counters["num-quantized-conv"] == 3
    assert done.after.graph.initializers["w2_scale"].shape == (8,)
    found = kernels(done.after)
    assert found["QLinearConv"] == 3 and not found["Conv"]
    x = normal(2, 4, 8, 8, seed=2)
    for exact in (True, False):
        assert relative_error(outputs(done.after, exact=exact, x=x), outputs(model, x=x)) < 0.05


@pytest.mark.openvino
def test_convolutions_run_in_integers_on_openvino(quantize, outputs, openvino_layers) -> None:
    model = build(CONV)
    done = quantize(model, STATIC, x=normal(8, 4, 8, 8))
    x = normal(2, 4, 8, 8, seed=2)
    found, layers = openvino_layers(done.after, x=x)
    assert relative_error(found, outputs(model, x=x)) < 0.05
    assert layers["Convolution[u8]"] == 3


PATCHES = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[b,3,32,32] x, float[16,3,4,4] w, float[16] w_b, float[16] w_gain)
=> (float[b,64,16] y)
<int64[3] rows = {0, 16, 64}> {
  a = Conv<strides=[4,4]>(x, w, w_b)
  r = Reshape(a, rows)
  t = Transpose<perm=[0,2,1]>(r)
  y = LayerNormalization(t, w_gain)
}
"""


@pytest.mark.openvino
def test_integers_are_handed_on_only_where_they_are_wanted(
    quantize, outputs, kernels, openvino_layers
) -> None:
    model = build(PATCHES)
    data, x = normal(8, 3, 32, 32), normal(2, 3, 32, 32, seed=2)
    kept = quantize(model, STATIC, "openvino-cpu", x=data)
    assert kept.operators["QuantizeLinear"] == 1
    found, layers = openvino_layers(kept.after, x=x)
    assert layers["Convolution[u8]"] == 1
    assert relative_error(found, outputs(model, x=x)) < 0.015
    handed = quantize(model, STATIC, "ort-cpu", x=data)
    assert handed.operators["QuantizeLinear"] == 2
    assert kernels(handed.after)["QLinearConv"] == 1
    between = quantize(build(CONV), STATIC, "openvino-cpu", x=normal(8, 4, 8, 8))
    assert between.operators["QuantizeLinear"] == 4


def test_a_weight_that_a_subgraph_reads_stays_float(quantize) -> None:
    model = build("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (bool c, float[n,4] x, float[4,4] w) => (float[n,4] y) {
          m = MatMul(x, w)
          y = If (c) <
            then_branch = a () => (float[n,4] p) { p = Add(m, w) },
            else_branch = b () => (float[n,4] q) { q = Identity(m) }
          >
        }
    """)
    done = quantize(model, STATIC, c=np.array([True]), x=normal(1, 4))
    assert not done.result.modified
    assert done.result.counters == {"num-skipped-shared": 1}


def test_the_caller_s_tensors_are_never_written_into(quantize) -> None:
    model = build(FFN)
    before = {k: v.const_value.numpy().copy() for k, v in model.graph.initializers.items()}
    quantize(model, STATIC, x=normal(2, 4, 16))
    for name, array in before.items():
        np.testing.assert_array_equal(model.graph.initializers[name].const_value.numpy(), array)


def test_synthetic_ranges_are_said() -> None:
    from irtools.data import Dataset, SyntheticSettings, synthesize
    from irtools.model import Model
    from irtools.passmanager import Pipeline

    model = build(FFN)
    data = synthesize(Model(model), SyntheticSettings(seed=0))
    assert isinstance(data, Dataset) and data.synthetic
    (pass_,) = Pipeline(STATIC)
    result = pass_.run(model, context("openvino-cpu", data))
    assert any("synthetic" in note for note in result.notes)
