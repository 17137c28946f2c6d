"""Scales of blocks in 8 bits: what they keep and save, and what the runtimes make of them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.errors import PipelineSyntaxError
from irtools.model import Model
from irtools.passes.quantization.ranges.blocks import dequantize_rows, quantize_rows
from irtools.passes.quantization.ranges.coded_scales import coded, codes_and_steps
from irtools.passes.quantization.ranges.spec import BlockSpec
from irtools.passmanager import Pipeline
from irtools.targets import find_target, lowered

from .conftest import build, relative_error

CODED = "int4:min-size=0:scales=s8"
ATTENTION = """
<ir_version: 10, opset_import: ["" : 21]>
g (float[batch,seq,64] x, float[64,96] w1, float[96] w_b, float[64,96] w2, float[96,64] w3)
=> (float[batch,seq,64] y) {
  a = MatMul(x, w1)  b = Add(a, w_b)  c = MatMul(x, w2)  d = Mul(b, c)
  e = MatMul(d, w3)  y = Add(e, x)
}
"""
GEMMS = """
<ir_version: 10, opset_import: ["" : 21]>
g (float[n,64] x, float[96,64] w1, float[96] w_b, float[96,64] w2) => (float[n,64] y) {
  a = Gemm<transB=1>(x, w1, w_b)  b = Gemm(a, w2)  y = Add(b, x)
}
"""
X = np.random.default_rng(5).standard_normal((2, 7, 64), dtype=np.float32)


def rows_of(channels: int = 64, inner: int = 576, seed: int = 0) -> np.ndarray:
    """Rows whose blocks differ by a factor of seven, as those of networks do."""
    rng = np.random.default_rng(seed)
    size = rng.uniform(0.3, 2, (channels, inner // 32)).astype(np.float32)
    return rng.standard_normal((channels, inner), np.float32) * np.repeat(size, 32, axis=1)


@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
def test_what_is_stored_is_what_codes_were_made_for(scheme: str) -> None:
    found = quantize_rows(rows_of(), BlockSpec(4, 32, scheme, "s8"))
    codes, steps = codes_and_steps(found.scale)
    assert codes.dtype == np.int8 and steps.shape == (64, 1)
    np.testing.assert_array_equal(codes * steps, found.scale)
    assert np.abs(codes).min() > 0 and (np.abs(codes).max(axis=1) == 127).all()


@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
def test_next_to_nothing_is_lost(scheme: str) -> None:
    rows = rows_of()
    errors = [
        np.square(rows - dequantize_rows(quantize_rows(rows, BlockSpec(4, 32, scheme, scales))))
        for scales in ("float32", "s8")
    ]
    plain, small = (float(error.sum(dtype=np.float64)) for error in errors)
    assert small < 1.01 * plain


def test_blocks_of_zeros_do_not_coarsen_the_others() -> None:
    rows = rows_of() * np.float32(1e-3)
    rows[:, :64] = 0
    found = quantize_rows(rows, BlockSpec(4, 32, "affine", "s8"))
    assert not dequantize_rows(found)[:, :64].any()
    assert relative_error(dequantize_rows(found), rows) < 0.09


def test_scales_below_half_a_step_keep_their_sign() -> None:
    scale = np.array([[1.0, -1e-9, 1e-9, 0.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
    found = coded(scale)
    assert np.sign(found[0]).tolist() == [1, -1, 1, 1] and np.allclose(found[1], 1)


def test_scales_that_float16_has_not_are_kept() -> None:
    rows = rows_of() * np.float32(1e-12)
    found = quantize_rows(rows, BlockSpec(4, 32, "affine", "s8"))
    assert relative_error(dequantize_rows(found), rows) < 0.09


@pytest.mark.parametrize("text", [ATTENTION, GEMMS])
@pytest.mark.parametrize("options", ["", ":symmetric=true"])
def test_a_byte_for_a_block(quantize, text: str, options: str) -> None:
    model = build(text)
    done, plain = (
        quantize(model, f"int4:min-size=0{more}{options}") for more in (":scales=s8", "")
    )
    saved = [weight_bytes(model) - weight_bytes(each.after) for each in (done, plain)]
    assert saved[0] == sum(d.gain for d in done.result.plan.decisions)
    assert saved[0] > saved[1]
    assert all("with scales in 8 bits" in d.action for d in done.result.plan.decisions)


def weight_bytes(model: ir.Model) -> int:
    return sum(v.const_value.nbytes for v in model.graph.initializers.values())


@pytest.mark.parametrize("text", [ATTENTION, GEMMS])
def test_onnx_runtime_multiplies_the_blocks(quantize, outputs, kernels, text: str) -> None:
    model, x = build(text), X if text == ATTENTION else X[0]
    done = quantize(model, CODED)
    low = lowered(Model(done.after), find_target("ort-cpu:isa=vnni")).ir
    found = kernels(low)
    assert found["MatMulNBits"] == (3 if text == ATTENTION else 2), found
    assert not {"DequantizeLinear", "Gemm", "MatMul"} & set(found)
    exact = outputs(done.after, x=x)
    assert relative_error(outputs(low, exact=False, x=x), exact) < 0.02
    # A session without optimizations computes scales at run time: nothing may get lost there.
    assert relative_error(outputs(low, x=x), exact) < 0.02
    assert relative_error(exact, outputs(model, x=x)) < 0.15


@pytest.mark.openvino
def test_openvino_keeps_the_blocks(quantize, outputs, openvino_layers) -> None:
    done = quantize(build(ATTENTION), CODED)
    low = lowered(Model(done.after), find_target("openvino-cpu:isa=vnni", check=False)).ir
    found, layers = openvino_layers(low, x=X)
    assert relative_error(found, outputs(done.after, x=X)) < 1e-5
    assert layers["FullyConnected[u4]"] == 3, layers


def test_only_integers_have_them() -> None:
    with pytest.raises(PipelineSyntaxError, match="nf4 has scales in float32: leave out scales=s8"):
        Pipeline("int4:format=nf4:scales=s8")
    with pytest.raises(ValueError, match="nf4 has scales in float32"):
        BlockSpec(4, 32, "nf4", "s8")
