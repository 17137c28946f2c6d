"""Channels that are much larger than all others: multiplied in float32 next to the int8 product."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import Dataset
from irtools.errors import OptionError
from irtools.model.printer import print_model
from irtools.passes.quantization.int8 import Int8
from irtools.passes.quantization.ranges.calibration import ActivationFacts, Calibrator
from irtools.passes.quantization.ranges.outliers import OutlierLimits, outlying
from irtools.passes.quantization.ranges.spec import ACTIVATION_U8
from irtools.passmanager import Pipeline, Plan
from irtools.statistics import HistogramResult, calibrators

from .conftest import build, context, relative_error

STATIC = "int8:mode=static:min-size=0:smooth=false"
LARGE = [3, 70]

LAYER = """
<ir_version: 10, opset_import: ["" : 20]>
layer (float[batch,seq,128] x, float[128,64] w, float[64] w_b) => (float[batch,seq,64] y) {
  h = MatMul(x, w)
  a = Add(h, w_b)
  y = Gelu(a)
}
"""


def activations(seed: int = 1, factor: float = 100.0) -> np.ndarray:
    """[6, 9, 128], of which two channels are `factor` times as large as the others."""
    x = np.random.default_rng(seed).normal(size=(6, 9, 128)).clip(-2, 2)
    x[..., LARGE] *= factor
    return x.astype(np.float32)


def array(model: ir.Model, name: str) -> np.ndarray:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


def test_golden(quantize) -> None:
    done = quantize(build(LAYER), STATIC, x=activations())
    text = print_model(done.after)
    body = text[text.index("x_quantized = ") :]
    assert [line.split("  ")[0] for line in body.replace("\n  ", "\n").splitlines()] == [
        "x_quantized = QuantizeLinear(x, x_scale, x_zero_point)",
        "x_dequantized = DequantizeLinear(x_quantized, x_scale, x_zero_point)",
        "x_outliers = Gather<axis=-1>(x, x_outlier_channels)",
        "w_dequantized = DequantizeLinear<axis=1>(w_quantized, w_scale)",
        "h = MatMul(x_dequantized, w_dequantized)",
        "h_outliers = MatMul(x_outliers, w_outliers)",
        "a = Add(h, w_b_1)",
        "a_whole = Add(a, h_outliers)",
        "y = Gelu(a_whole)",
    ]
    assert array(done.after, "x_outlier_channels").tolist() == LARGE
    assert not array(done.after, "w_quantized")[LARGE].any()
    np.testing.assert_array_equal(array(done.after, "w_outliers"), array(done.before, "w")[LARGE])
    # The range of the others: 2 to either side.
    assert array(done.after, "x_scale") == pytest.approx(4 / 255, rel=1e-5)
    assert done.result.counters["num-outlier-channels"] == 2


GEMM = """
<ir_version: 10, opset_import: ["" : 20]>
layer (float[n,128] x, float[64,128] w, float[64] w_b) => (float[n,64] y) {
  y = Gemm<transB=1>(x, w, w_b)
}
"""
TURNED = """
<ir_version: 10, opset_import: ["" : 20]>
layer (float[b,s,128] x, float[64,128] w) => (float[b,s,64] y) {
  t = Transpose(w)
  y = MatMul(x, t)
}
"""
SHARED = """
<ir_version: 10, opset_import: ["" : 20]>
layer (float[b,s,128] x, float[128,64] w1, float[128,128] w2) => (float[b,s,64] y) {
  k = MatMul(x, w1)
  q = MatMul(x, w2)
  r = MatMul(q, w1)
  y = Sub(k, r)
}
"""


@pytest.mark.parametrize(
    "text", [LAYER, GEMM, TURNED, SHARED], ids=["layer", "gemm", "turned", "shared"]
)
@pytest.mark.parametrize("exact", [True, False])
def test_numbers(quantize, outputs, text: str, *, exact: bool) -> None:
    """Without the option the two channels leave the others next to nothing."""
    model = build(text)
    flat = text is GEMM
    given, fresh = (x.reshape(-1, 128) if flat else x for x in (activations(1), activations(2)))
    # What the large channels add is not what is asked for: only the others would be lost.
    for name in ("w", "w1", "w2"):
        if name in model.graph.initializers:
            w = array(model, name).copy()
            w[(slice(None), LARGE) if w.shape == (64, 128) else LARGE] *= 0.01
            model.graph.initializers[name].const_value = ir.Tensor(w, name=name)
    wanted = outputs(model, x=fresh)
    apart = quantize(model, STATIC, x=given)
    together = quantize(model, f"{STATIC}:outliers=0:least-sqnr=none", x=given)
    assert apart.result.counters["num-outlier-channels"] >= 2
    assert "num-outlier-channels" not in together.result.counters
    assert relative_error(outputs(apart.after, exact=exact, x=fresh), wanted) < 0.02
    assert relative_error(outputs(together.after, exact=exact, x=fresh), wanted) > 0.1


@pytest.mark.openvino
def test_the_rest_is_int8_on_both_runtimes(quantize, outputs, kernels, openvino_layers) -> None:
    done = quantize(build(LAYER), STATIC, x=activations())
    assert kernels(done.after)["MatMulIntegerToFloat"] == 1
    x = activations(2)
    found, layers = openvino_layers(done.after, x=x)
    assert layers["FullyConnected[u8]"] == 1
    assert relative_error(found, outputs(done.after, x=x)) < 0.01


def test_an_even_range_stays_as_it_was(quantize) -> None:
    """Also where a few channels are three times as large: the others keep bits enough."""
    x = activations(factor=3.0)
    found = quantize(build(LAYER), STATIC, x=x)
    assert print_model(found.after) == print_model(
        quantize(build(LAYER), f"{STATIC}:outliers=0", x=x).after
    )


EIGHT = OutlierLimits(8, 18.0)


def test_what_is_outlying() -> None:
    peaks, square = np.ones(640, np.float32), np.full(640, 0.1)
    scale = 50 / 255
    peaks[[5, 600]] = 50, 30
    assert outlying(peaks, square, scale, EIGHT) == (5, 600)
    assert (
        outlying(peaks, square, scale, OutlierLimits(1, 18.0)) == ()
    )  # The range would hardly shrink.
    assert outlying(peaks, square, scale, OutlierLimits(0, 18.0)) == ()
    # 18 dB for the others: their signal is 63 times the noise of rounding.
    assert outlying(peaks, np.full(640, 64 * scale**2 / 12), scale, EIGHT) == ()
    assert outlying(peaks, np.full(640, 62 * scale**2 / 12), scale, EIGHT) == (5, 600)
    assert outlying(peaks, np.full(640, 64 * scale**2 / 12), scale, OutlierLimits(8, 19.0)) == (
        5,
        600,
    )
    # One channel in 64.
    assert outlying(peaks[:127], square[:127], scale, EIGHT) == (5,)
    assert outlying(peaks[:63], square[:63], scale, EIGHT) == ()
    peaks[7] = 1.2
    assert outlying(peaks, square, scale, EIGHT) == (5, 600)
    assert outlying(np.zeros(640), np.zeros(640), 1.0, EIGHT) == ()


def test_more_than_the_limit_of_a_shared_weight_stay(quantize) -> None:
    """The rows of a weight are zero for all its readers, so their outliers add up."""
    model = build("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[b,s,128] x, float[b,s,128] z, float[128,64] w) => (float[b,s,64] y) {
          k = MatMul(x, w)
          r = MatMul(z, w)
          y = Sub(k, r)
        }
    """)
    z = activations()[..., ::-1].copy()
    assert quantize(model, f"{STATIC}:outliers=2", x=activations(), z=z).result.counters == {
        "num-quantized-matmul": 2
    }
    done = quantize(model, f"{STATIC}:outliers=4", x=activations(), z=z)
    # Each may have one in 64 of 128; together they are four.
    assert done.result.counters["num-outlier-channels"] == 4


def test_a_table_that_is_looked_up_keeps_its_rows(quantize) -> None:
    model = build("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (int64[b,s] ids, float[b,s,128] x, float[300,128] w)
        => (float[b,s,300] y, float[b,s,128] e)
        { e = Gather(w, ids)  t = Transpose(w)  y = MatMul(x, t) }
    """)
    ids = np.zeros((6, 9), np.int64)
    done = quantize(model, STATIC, x=activations(), ids=ids)
    assert "num-outlier-channels" not in done.result.counters


def test_integers_that_a_conv_hands_on_are_not_cut(quantize) -> None:
    model = build("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[b,1,128] x, float[1,1,1] w, float[128,8] w2) => (float[b,1,8] y)
        { c = Conv(x, w)  y = MatMul(c, w2) }
    """, w=np.ones((1, 1, 1)))  # fmt: skip
    x = activations().reshape(-1, 1, 128)
    done = quantize(model, STATIC, x=x)
    assert done.result.counters == {"num-quantized-matmul": 1, "num-quantized-conv": 1}


def test_a_second_run_leaves_both_parts_alone(quantize) -> None:
    once = quantize(build(LAYER), STATIC, x=activations()).after
    again = quantize(once, STATIC, x=activations())
    assert not again.result.modified
    assert again.result.counters["num-already-quantized"] == 2


def test_a_plan_as_json_does_the_same(quantize) -> None:
    model = build(LAYER)
    (pass_,) = Pipeline(STATIC)
    assert isinstance(pass_, Int8)
    ctx = context("ort-cpu", Dataset({"x": activations()}))
    plan = pass_.plan(model, ctx)
    assert "2 input channels in float32" in plan.decisions[0].action
    after = model.clone()
    pass_.apply(after, Plan.from_json(plan.to_json()), ctx)
    assert print_model(after) == print_model(quantize(model, STATIC, x=activations()).after)


@pytest.mark.parametrize("calibrator", ["minmax", "mse", "percentile", "entropy"])
def test_every_calibrator_sees_the_rest_only(quantize, calibrator: str) -> None:
    done = quantize(build(LAYER), f"{STATIC}:calibrator={calibrator}", x=activations())
    assert array(done.after, "x_scale") <= 4.01 / 255


def test_fewer_than_no_channels() -> None:
    with pytest.raises(OptionError, match="outliers is -1, expected 0 or more"):
        Int8(outliers=-1)


def test_a_floor_without_bounds() -> None:
    with pytest.raises(OptionError, match="outlier-floor is inf, expected a number of decibels"):
        Int8(outlier_floor=float("inf"))


def test_a_plan_names_what_would_keep_more(quantize) -> None:
    """The others keep 22 dB next to channels that are fifteen times as large."""
    x = activations(factor=15.0)
    plan = quantize(build(LAYER), STATIC, x=x).result.plan
    assert plan.remedies[0].startswith(
        "outlier-floor=26, which multiplies large channels of 1 more"
    )
    assert plan.remedies[1].startswith("calibrator=mse")
    assert Plan.from_json(plan.to_json()) == plan
    more = quantize(build(LAYER), f"{STATIC}:outlier-floor=26:calibrator=mse", x=x).result
    assert more.counters["num-outlier-channels"] == 2
    assert [text.partition(",")[0] for text in more.plan.remedies] == ["mode=weight-only"]


def test_the_predicted_error_is_that_of_the_rest(quantize, outputs) -> None:
    """Rows of large channels as large as these would make noise, were they rounded."""
    model, x = build(LAYER.replace("y = Gelu(a)", "y = Identity(a)")), activations()
    w = array(model, "w").copy()
    w[LARGE] *= 10
    model.graph.initializers["w"].const_value = ir.Tensor(w, name="w")
    done = quantize(model, STATIC, x=x)
    (decision,) = done.result.plan.decisions
    found = relative_error(outputs(done.after, x=x), outputs(model, x=x))
    assert decision.cost == pytest.approx(found**2, rel=0.2)


def test_values_beyond_the_rest_do_not_count() -> None:
    """Of three bins the outer one is cut off, with all that was counted in it."""
    centers, counts = np.array([-1, 0.5, 50], np.float32), np.array([7, 8, 9])
    spread = HistogramResult(centers, counts, -1.5, 55.0, np.array([1, 1, 10], np.float32))
    cut = (
        Calibrator(calibrators()["mse"](), ACTIVATION_U8)
        .within(ir.val("x"), ActivationFacts(None, spread=spread), 2.0)
        .spread
    )
    assert isinstance(cut, HistogramResult) and cut.widths is not None
    assert (cut.centers.tolist(), cut.counts.tolist()) == ([-1, 0.5], [7, 8])
    assert (cut.low, cut.high, cut.widths.tolist()) == (-1.5, 2.0, [1, 1])
