"""Static int8 where one condition decides: each was broken on purpose and nothing else saw it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import Dataset
from irtools.model import Model
from irtools.passes.quantization.int8 import Int8
from irtools.passmanager import Pipeline, Plan
from irtools.targets import RunnerOptions, find_target

from .conftest import build, context, relative_error

STATIC = "int8:mode=static:min-size=0"


def normal(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).clip(-2, 2).astype(np.float32)


def array(model: ir.Model, name: str) -> np.ndarray:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


ONE = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[b,s,4] x, float[4,4] w) => (float[b,s,4] y) { y = MatMul(x, w) }
"""


def spread() -> np.ndarray:
    """Values in [0, 1], and one that is far out."""
    x = np.random.default_rng(0).random((4, 2500, 4)).astype(np.float32)
    x[0, 0, 0] = 100.0
    return x


@pytest.mark.parametrize(
    ("calibrator", "low", "high"),
    [("minmax", 100, 100), ("percentile", 0.99, 1.0), ("mse", 25, 100), ("entropy", 0.9, 20)],
)
def test_what_a_calibrator_makes_of_an_outlier(
    quantize, calibrator: str, low: float, high: float
) -> None:
    """The range is one-sided, so all 255 steps lie above 0."""
    done = quantize(
        build(ONE), f"{STATIC}:calibrator={calibrator}:least-sqnr=none:smooth=false", x=spread()
    )
    assert array(done.after, "x_zero_point") == 0
    assert low / 255 * 0.999 <= array(done.after, "x_scale") <= high / 255 * 1.001


def test_a_turned_weight_keeps_one_scale_per_output(quantize) -> None:
    model = build("""
        <ir_version: 10, opset_import: ["" : 17]>
        g (float[b,s,8] x, float[4,8] w) => (float[b,s,4] y) { t = Transpose(w)  y = MatMul(x, t) }
    """)
    done = quantize(model, STATIC, x=normal(4, 6, 8))
    assert array(done.after, "w_scale").shape == (4,)
    (node,) = [n for n in done.after.graph if n.name and n.name.startswith("w_dequantized")]
    assert node.attributes["axis"].as_int() == 1


def test_rows_of_a_matrix_are_counted_whatever_their_name(quantize) -> None:
    """MatMul + Add of two dimensions becomes a Gemm at any size, so its bias is int32."""
    model = build("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[n,8] x, float[8,4] w, float[4] w_b) => (float[n,4] y)
        { m = MatMul(x, w)  y = Add(m, w_b) }
    """)
    done = quantize(model, STATIC, x=normal(32, 8))
    assert array(done.after, "w_b_quantized").dtype == np.int32


CONVS = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[b,4,8,8] x, float[4,4,3,3] w1, float[4,4,3,3] w2) => (float[b,4,6,6] y) {
  a = Conv<pads=[1,1,1,1]>(x, w1)
  r = Relu(a)
  y = Conv(r, w2)
}
"""


def quantized(model: ir.Model) -> list[str]:
    """Names of what is quantized, in order."""
    return [str(n.inputs[0].name) for n in model.graph if n.op_type == "QuantizeLinear"]


def test_integers_run_from_layer_to_layer(quantize, outputs) -> None:
    """What one Conv outputs and the next one takes is quantized once."""
    model = build(CONVS)
    x = normal(8, 4, 8, 8)
    done = quantize(model, STATIC, x=x)
    assert quantized(done.after) == ["x", "r", "y_float"]
    assert relative_error(outputs(done.after, x=x), outputs(model, x=x)) < 0.03


OUTPUTS = {
    "a convolution": "=> (float[b,4,8,8] y) { y = Conv(x, w) }",
    "one with a bias": "=> (float[b,4,8,8] y) { y = Conv(x, w, w_b) }",
    "a relu after it": "=> (float[b,4,8,8] y) { a = Conv(x, w) y = Relu(a) }",
    "before and after a relu": "=> (float[b,4,8,8] y, float[b,4,8,8] a) "
    "{ a = Conv(x, w) y = Relu(a) }",
    "one that is read, too": "=> (float[b,4,8,8] y, float[b,4,8,8] a) "
    "{ a = Conv(x, w) y = Conv(a, w2) }",
    "two of one weight": "=> (float[b,4,8,8] y, float[b,4,8,8] a) "
    "{ a = Conv(x, w) y = Conv(a, w) }",
    "a product": "=> (float[b,4,8,4] y) { y = MatMul(x, w_m) }",
    "a product and its sum": "=> (float[b,4,8,4] y, float[b,4,8,4] p) "
    "{ p = MatMul(x, w_m) y = Add(p, w_b) }",
    "a gemm": "=> (float[m,4] y) <int64[2] s = {-1, 8}> { f = Reshape(x, s) y = Gemm(f, w_m) }",
    "a gemm with a bias": "=> (float[m,4] y) <int64[2] s = {-1, 8}> "
    "{ f = Reshape(x, s) y = Gemm(f, w_m, w_b) }",
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_what_is_counted_runs_in_int8_as_an_output_too(case: str, quantize, outputs) -> None:
    """A Conv whose float value another node takes is computed in float32 as a whole."""
    model = build(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[b,4,8,8] x, float[4,4,1,1] w, '
        f"float[4,4,1,1] w2, float[8,4] w_m, float[4] w_b) {OUTPUTS[case]}"
    )
    x = normal(8, 4, 8, 8)
    done = quantize(model, STATIC, x=x)
    assert [v.name for v in done.after.graph.outputs] == [v.name for v in model.graph.outputs]
    counts = done.result.counters
    lowered = done.after.clone()
    find_target("ort-cpu").lower(lowered)
    with find_target("ort-cpu").runner(Model(lowered), RunnerOptions(threads=1)) as runner:
        found = runner.kernels()
    assert found.int8 == sum(counts.values()) >= 1
    assert found.float_fallbacks == ()
    assert relative_error(outputs(done.after, x=x), outputs(model, x=x)) < 0.03


def test_a_convolution_that_is_an_output_hands_on_its_own_value(quantize) -> None:
    text = CONVS.replace("float[b,4,6,6] y)", "float[b,4,6,6] y, float[b,4,8,8] a)")
    done = quantize(build(text), STATIC, x=normal(8, 4, 8, 8))
    assert quantized(done.after) == ["x", "a_float", "r", "y_float"]


def test_a_relu_inside_a_branch_is_not_what_a_convolution_hands_on(quantize) -> None:
    model = build("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[b,4,8,8] x, float[4,4,1,1] w) => (float[b,4,8,8] y) {
          a = Conv(x, w)
          m = ReduceMax<keepdims=0>(x)
          c = Cast<to=9>(m)
          y = If (c) <
            then_branch = t () => (float[b,4,8,8] p) { p = Relu(a) },
            else_branch = e () => (float[b,4,8,8] q) { q = Identity(x) }
          >
        }
    """)
    done = quantize(model, STATIC, x=normal(8, 4, 8, 8))
    assert quantized(done.after) == ["x", "a"]


def test_a_shared_value_is_quantized_for_each_set_of_parameters() -> None:
    """Two readers that were planned with other ranges keep a pair each."""
    model = build("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[b,s,4] x, float[4,4] w1, float[4,4] w2) => (float[b,s,4] y)
        { p = MatMul(x, w1)  q = MatMul(x, w2)  y = Add(p, q) }
    """)
    (pass_,) = Pipeline(STATIC)
    assert isinstance(pass_, Int8)
    data = context("ort-cpu", Dataset({"x": normal(4, 6, 4)}))
    plan = Plan.from_json(pass_.plan(model, data).to_json())
    text = plan.to_json()
    scale = text.split('"scale": ')[1].split(",")[0]
    narrow = Plan.from_json(text.replace(f'"scale": {scale}', '"scale": 0.001', 1))
    pass_.apply(model, narrow, data)
    assert quantized(model) == ["x", "x"]


def test_a_gemm_s_bias_of_two_dimensions_in_dynamic_form(quantize) -> None:
    """[1, N] is made [N], the form in which the runtime fuses it."""
    model = build("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[n,4] x, float[4,4] w, float[1,4] w_b) => (float[n,4] y) { y = Gemm(x, w, w_b) }
    """)
    done = quantize(model, "int8:mode=dynamic:min-size=0")
    (add,) = [node for node in done.after.graph if node.op_type == "Add"]
    bias = add.inputs[1]
    assert bias is not None and bias.const_value is not None
    assert tuple(bias.const_value.shape.numpy()) == (4,)
