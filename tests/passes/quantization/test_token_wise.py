"""Token-wise int8: a range for every token, with weights per channel or in groups."""

from __future__ import annotations

import numpy as np
import pytest

from .conftest import build, relative_error
from .test_forms import FFN, TWO_BY_TWO, WEIGHT, body, normal

ROWS = "int8:mode=token-wise:min-size=0"
BLOCKS = f"{ROWS}:block-size=16"


def test_golden(quantize) -> None:
    done = quantize(build(TWO_BY_TWO, w=WEIGHT), ROWS, target="ort-cpu:isa=vnni")
    assert body(done.after) == (
        "w_quantized: int8[2, 2] = [127, -127, 50, 0]\n"
        "w_scale: float32[2] = [0.01, 0.02]\n"
        "last_axis: int64[1] = [-1]\n"
        "tiny: float32[] = 1.1754944e-38\n"
        "token_step: float32[] = 0.007874016\n"
        "token_zero_point: uint8[] = 128\n"
        "x_size = Abs(x)\n"
        "x_largest = ReduceMax<keepdims=1>(x_size, last_axis)\n"
        "x_peak = Max(x_largest, tiny)\n"
        "x_unit = Div(x, x_peak)\n"
        "x_quantized = QuantizeLinear(x_unit, token_step, token_zero_point)\n"
        "x_rounded = DequantizeLinear(x_quantized, token_step, token_zero_point)\n"
        "w_dequantized = DequantizeLinear<axis=1>(w_quantized, w_scale)\n"
        "y_by_peak = MatMul(x_rounded, w_dequantized)\n"
        "y = Mul(y_by_peak, x_peak)"
    )


def test_golden_of_groups(quantize) -> None:
    model = build("""
        <ir_version: 10, opset_import: ["" : 21]>
        g (float[n,32] x, float[32,2] w) => (float[n,2] y) { y = MatMul(x, w) }
    """)
    done = quantize(model, BLOCKS)
    assert body(done.after).splitlines()[-2:] == [
        "w_dequantized = DequantizeLinear<axis=0, block_size=16>(w_quantized, w_scale)",
        "y = MatMul(x, w_dequantized)",
    ]
    assert done.after.graph.initializers["w_scale"].shape == (2, 2)


def test_numbers_are_those_of_a_range_per_token(quantize, outputs) -> None:
    """Against the arithmetic written out: codes of each row by its own largest magnitude."""
    w = normal(32, 16, seed=2)
    text = TWO_BY_TWO.replace("seq,2] x, float[2,2]", "seq,32] x, float[32,16]")
    model = build(text.replace("batch,seq,2] y", "batch,seq,16] y"), w=w)
    x = normal(3, 5, 32) * np.array([1e-3, 1.0, 1e3, 1e6, 0.0], np.float32)[:, None]
    peak = np.maximum(np.abs(x).max(axis=-1, keepdims=True), np.finfo(np.float32).tiny)
    scale = np.abs(w).max(axis=0) / 127
    wanted = np.rint(x / peak * 127) / 127 @ (np.rint(w / scale) * scale) * peak
    done = quantize(model, ROWS, target="ort-cpu:isa=vnni")
    found = outputs(done.after, exact=True, x=x)
    for row in range(5):
        assert np.allclose(
            found[:, row], wanted[:, row], rtol=1e-5, atol=1e-5 * peak.max(axis=-1)[:, row, None]
        )
    assert not found[:, 4].any()


def test_a_token_depends_on_no_other_token(quantize, outputs) -> None:
    model = build(FFN)
    x = normal(1, 6, 32)
    large = np.concatenate([x, 1e4 * normal(1, 2, 32, seed=5)], axis=1)
    done = quantize(model, ROWS)
    alone, together = outputs(done.after, x=x), outputs(done.after, x=large)[:, :6]
    assert relative_error(together, alone) < 1e-6
    dynamic = quantize(model, "int8:mode=dynamic:min-size=0")
    assert relative_error(outputs(dynamic.after, x=large)[:, :6], outputs(dynamic.after, x=x)) > 0.5


@pytest.mark.parametrize("pipeline", [ROWS, BLOCKS])
@pytest.mark.parametrize("exact", [True, False])
def test_close_to_the_float_model(quantize, outputs, pipeline: str, exact: bool) -> None:
    model, x = build(FFN), normal(3, 7, 32)
    done = quantize(model, pipeline)
    assert relative_error(outputs(done.after, exact=exact, x=x), outputs(model, x=x)) < 0.02


@pytest.mark.openvino
@pytest.mark.parametrize(("pipeline", "isa"), [(ROWS, "avx2"), (BLOCKS, "vnni")])
def test_openvino_gives_the_same_numbers(quantize, outputs, openvino_layers, pipeline, isa) -> None:
    model, x = build(FFN), normal(3, 7, 32)
    done = quantize(model, pipeline, target=f"openvino-cpu:isa={isa}")
    found, _ = openvino_layers(done.after, x=x)
    assert relative_error(found, outputs(model, x=x)) < 0.02


def test_kernels_on_onnx_runtime(quantize, kernels) -> None:
    rows = kernels(quantize(build(FFN), ROWS).after)
    assert rows["MatMulIntegerToFloat"] == 2 and not rows["MatMul"], rows
    groups = kernels(quantize(build(FFN), BLOCKS).after)
    assert groups["MatMulNBits"] == 2 and not groups["MatMul"], groups


def test_a_shared_activation_is_measured_once(quantize) -> None:
    model = build("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[batch,seq,8] x, float[8,8] w_q, float[8,8] w_k) => (float[batch,seq,8] y)
        { q = MatMul(x, w_q)  k = MatMul(x, w_k)  y = Mul(q, k) }
    """)
    done = quantize(model, ROWS)
    assert done.operators["QuantizeLinear"] == done.operators["ReduceMax"] == 1


@pytest.mark.parametrize("text", [
    "g (float[n,8] x, float[4,8] w, float[4] w_b) => (float[n,4] y) { y=Gemm<transB=1>(x,w,w_b) }",
    "g (float[n,8] x, float[4,8] w, float[1,4] w_b) => (float[n,4] y) {y=Gemm<transB=1>(x,w,w_b)}",
    "g (float[n,8] x, float[8,4] w) => (float[n,4] y) { y = Gemm(x, w) }",
    "g (float[n,8] x, float[4,8] w) => (float[n,4] y) { t = Transpose(w) y = MatMul(x, t) }",
])  # fmt: skip
def test_every_layout_of_a_weight(quantize, outputs, text: str) -> None:
    model = build(f'<ir_version: 10, opset_import: ["" : 17]> {text}')
    done = quantize(model, ROWS)
    assert done.result.counters["num-quantized-matmul"] == 1
    assert done.after.graph.initializers["w_quantized"].shape == (8, 4)
    assert done.after.graph.opset_imports[""] == 18
    x = normal(5, 8)
    assert relative_error(outputs(done.after, x=x), outputs(model, x=x)) < 0.02


@pytest.mark.parametrize(
    ("target", "pipeline", "missing"),
    [
        ("openvino-cpu:isa=avx2", BLOCKS, "for each token and block"),
        ("ort-cuda", BLOCKS, "for each token and block"),
        ("ort-cuda", ROWS, "in 8 bits"),
    ],
)
def test_targets_without_a_kernel_say_so(
    quantize, target: str, pipeline: str, missing: str
) -> None:
    done = quantize(build(FFN), pipeline, target=target)
    assert done.result.counters == {"num-stored-other": 2}
    (note,) = (note for note in done.result.notes if "kernel" in note)
    assert "weights are only stored in 8 bits" in note and missing in note


def test_channels_that_no_block_divides_are_named(quantize) -> None:
    model = build("""
        <ir_version: 10, opset_import: ["" : 21]>
        g (float[n,24] x, float[24,8] w) => (float[n,8] y) { y = MatMul(x, w) }
    """)
    done = quantize(model, BLOCKS)
    assert done.result.counters == {"num-stored-other": 1}
    assert any("no block size from 16 to 16 divides" in note for note in done.result.notes)


@pytest.mark.parametrize("pipeline", [ROWS, BLOCKS])
def test_a_second_run_changes_nothing(quantize, pipeline: str) -> None:
    once = quantize(build(FFN), pipeline)
    twice = quantize(once.after, pipeline)
    assert not twice.result.modified
    assert twice.result.counters == {"num-already-quantized": 2}
