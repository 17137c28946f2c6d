"""What is not a site, and why: each condition was once broken and no test saw it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import Dataset
from irtools.model.printer import print_model
from irtools.passes.quantization.int8 import Int8
from irtools.passes.quantization.ranges.cost import bias_shift, matrix_view
from irtools.passes.quantization.sites.find import find_sites
from irtools.passes.quantization.sites.results import result_of
from irtools.passmanager import Pipeline, Plan

from .conftest import build, context

STATIC = "int8:mode=static:min-size=0"
HEAD = '<ir_version: 10, opset_import: ["" : 20]> '


def normal(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).clip(-2, 2).astype(np.float32)


STAYS = {
    "a weight that is an output": (
        "g (float[n,4] x, float[4,4] w) => (float[n,4] y, float[4,4] w) { y = MatMul(x, w) }",
        "num-skipped-shared",
    ),
    "a weight whose transpose is an output": (
        "g (float[n,4] x, float[4,4] w) => (float[n,4] y, float[4,4] t) "
        "{ t = Transpose(w) y = MatMul(x, t) }",
        "num-skipped-shared",
    ),
}


@pytest.mark.parametrize("case", STAYS)
def test_stays(case: str, quantize) -> None:
    text, reason = STAYS[case]
    model = build(HEAD + text)
    done = quantize(model, "int8:mode=dynamic:min-size=0")
    assert not done.result.modified and print_model(done.after) == print_model(model)
    assert reason is None or done.result.counters == {reason: 1}


FOREIGN = '<ir_version: 10, opset_import: ["" : 20, "local" : 1]> '


def test_a_sum_of_a_foreign_domain_is_no_bias() -> None:
    model = build(
        FOREIGN + "g (float[n,4] x, float[4,4] w, float[4] w_b) => (float[n,4] y) "
        "{ a = MatMul(x, w) y = local.Add(a, w_b) }"
    )
    (weight,) = find_sites(model).weights
    assert weight.uses[0].bias is None


def test_a_transpose_of_a_foreign_domain_hides_a_weight() -> None:
    model = build(
        FOREIGN + "g (float[n,4] x, float[4,4] w) => (float[n,4] y) "
        "{ t = local.Transpose(w) y = MatMul(x, t) }"
    )
    assert find_sites(model).weights == ()


def test_a_relu_of_a_foreign_domain_is_not_what_a_convolution_hands_on() -> None:
    model = build(
        FOREIGN + "g (float[n,4,3,3] x, float[4,4,1,1] w) => (float[n,4,3,3] y) "
        "{ a = Conv(x, w) y = local.Relu(a) }"
    )
    (weight,) = find_sites(model).weights
    assert result_of(weight.uses[0], {"Relu", "Clip"}).name == "a"


def test_a_kernel_with_a_bias_that_is_computed_stays(quantize) -> None:
    model = build(
        HEAD + "g (float[n,4,3,3] x, float[4,4,1,1] w) => (float[n,4,3,3] y) "
        "{ a = Constant<value_ints = [0, 2, 3]>() d = ReduceMax<keepdims=0>(x, a) "
        "y = Conv(x, w, d) }"
    )
    done = quantize(model, STATIC, x=normal(8, 4, 3, 3))
    assert done.result.counters == {"num-stored-conv": 1}


def test_a_table_that_is_multiplied_by_is_stored_without_ranges(quantize) -> None:
    model = build(
        HEAD + "g (int64[n] ids, float[40,8] w) => (float[n,40] y) "
        "{ h = Gather(w, ids) t = Transpose(w) y = MatMul(h, t) }"
    )
    done = quantize(model, "int8:mode=dynamic:min-size=0")
    assert done.result.counters == {"num-stored-other": 1}


BIASES = {
    "the product is an output": ("float[n,4] y, float[n,4] m", "y = Add(m, w_b)", "float[4] w_b"),
    "the bias is taken away": ("float[n,4] y", "y = Sub(m, w_b)", "float[4] w_b"),
    "one per row": ("float[4,4] y", "y = Add(m, w_b)", "float[4,1] w_b"),
    "one per element": ("float[4,4] y", "y = Add(m, w_b)", "float[4,4] w_b"),
    "for a batch": ("float[1,n,4] y", "y = Add(m, w_b)", "float[1,1,4] w_b"),
}


@pytest.mark.parametrize("case", BIASES)
def test_what_is_no_bias_stays_as_it_is(case: str, quantize) -> None:
    outputs, last, bias = BIASES[case]
    model = build(
        f"{HEAD} g (float[n,4] x, float[4,4] w, {bias}) => ({outputs}) "
        f"{{ m = MatMul(x, w) {last} }}"
    )
    done = quantize(model, STATIC, x=normal(4, 4) + 1)
    assert done.result.counters["num-quantized-matmul"] == 1
    kept = done.after.graph.initializers["w_b"].const_value
    np.testing.assert_array_equal(kept.numpy(), model.graph.initializers["w_b"].const_value.numpy())


def test_a_bias_with_nan_is_none(quantize) -> None:
    model = build(
        f"{HEAD} g (float[n,4] x, float[4,4] w, float[4] w_b) => (float[n,4] y) "
        "{ y = Gemm(x, w, w_b) }",
        w_b=np.array([1, np.nan, 2, 3]),
    )
    done = quantize(model, STATIC, x=normal(8, 4))
    assert done.result.counters == {"num-stored-other": 1}


def test_a_weight_only_weight_stands_before_its_first_reader(quantize) -> None:
    model = build(
        f"{HEAD} g (float[n,4] x, float[4,4] w) => (float[n,4] y) "
        "{ a = MatMul(x, w) b = Relu(a) y = MatMul(b, w) }"
    )
    done = quantize(model, "int8:mode=weight-only:min-size=0")
    assert next(iter(done.after.graph)).op_type == "DequantizeLinear"
    assert done.result.counters == {"num-quantized-matmul": 2}


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_shift_of_a_convolution_is_its_mean_error(groups: int) -> None:
    """A constant image of the mean: every position of the output is off by the shift."""
    rng = np.random.default_rng(0)
    error = rng.normal(size=(8, 4 // groups, 3, 3))
    mean = rng.normal(size=4)
    found = bias_shift(error, 0, mean, groups)
    for out in range(8):
        first = out // (8 // groups) * (4 // groups)
        inputs = mean[first : first + 4 // groups]
        assert found[out] == pytest.approx((error[out] * inputs[:, None, None]).sum())


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_rows_of_a_kernel_belong_to_one_input_channel(groups: int) -> None:
    weight = np.random.default_rng(0).normal(size=(8, 4 // groups, 3, 3))
    view = matrix_view(weight, 0, groups)
    assert view.shape == (4, 8 // groups * 9)
    for channel in range(4):
        group, inside = divmod(channel, 4 // groups)
        outputs = slice(group * 8 // groups, (group + 1) * 8 // groups)
        np.testing.assert_array_equal(view[channel], weight[outputs, inside].reshape(-1))


def plan_of(model: ir.Model, text: str, **feeds: np.ndarray) -> tuple[Int8, Plan]:
    (pass_,) = Pipeline(text)
    assert isinstance(pass_, Int8)
    return pass_, pass_.plan(model, context("ort-cpu", Dataset(feeds) if feeds else None))


@pytest.mark.parametrize("turned", [False, True])
def test_the_cost_of_blocks_is_that_of_blocks_along_the_inputs(turned: bool, outputs) -> None:
    """Every other row is large: blocks across the rows round the small ones as coarsely."""
    w = np.random.default_rng(0).normal(size=(32, 32))
    w[::2] *= 1000
    op, array = ("Gemm<transB=1>(x, w)", w.T) if turned else ("Gemm(x, w)", w)
    head = '<ir_version: 10, opset_import: ["" : 21]> g (float[n,32] x, float[32,32] w)'
    model = build(f"{head} => (float[n,32] y) {{ y = {op} }}", w=array)
    pass_, plan = plan_of(model, "int8:mode=weight-only:min-size=0:block-size=16")
    after = model.clone()
    pass_.apply(after, plan, context("ort-cpu", None))
    x = np.random.default_rng(1).normal(size=(512, 32)).astype(np.float32)
    wanted, found = outputs(model, x=x), outputs(after, x=x)
    real = float(np.square(found - wanted).sum() / np.square(wanted).sum())
    assert 0.8 < plan.decisions[0].cost / real < 1.25


def test_a_plan_of_convolutions_survives_json() -> None:
    model = build("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[b,4,8,8] x, float[4,2,3,3] w, float[4] w_b) => (float[b,4,8,8] y)
        { a = Conv<pads=[1,1,1,1], group=2>(x, w, w_b)  y = Relu(a) }
    """)
    x = normal(8, 4, 8, 8) + 1
    pass_, plan = plan_of(model, STATIC, x=x)
    texts = []
    for each in (plan, Plan.from_json(plan.to_json())):
        after = model.clone()
        pass_.apply(after, each, context("ort-cpu", None))
        texts.append(print_model(after))
    assert texts[0] == texts[1]
    assert texts[0].count(" = QuantizeLinear") == 2


@pytest.mark.parametrize(
    ("target", "form"),
    [
        ("ort-cpu:isa=avx2", "dynamic"),
        ("ort-cpu:isa=vnni", "dynamic"),
        ("openvino-cpu:isa=vnni", "weight-only"),
        ("openvino-cpu:isa=avx2", "weight-only"),
        ("ort-cuda", "weight-only"),
    ],
)
def test_what_auto_means_without_data(target: str, form: str) -> None:
    """Ranges of synthetic data are a guess: they are taken only where static is asked for."""
    w = np.random.default_rng(0).normal(size=(16, 16))
    model = build(
        f"{HEAD} g (float[n,16] x, float[16,16] w) => (float[n,16] y) {{ y = MatMul(x, w) }}", w=w
    )
    (pass_,) = Pipeline("int8:min-size=0")
    assert isinstance(pass_, Int8)
    ctx = replace(context(target, Dataset({"x": normal(4, 16)})), calibration=None)
    action = pass_.plan(model, ctx).decisions[0].action
    words = {"dynamic": "at run time", "weight-only": "weight only"}
    assert words[form] in action


def test_an_old_model_gets_what_its_opset_can_express(quantize) -> None:
    model = build("""
        <ir_version: 4, opset_import: ["" : 9]>
        g (int64[n] ids, float[40,8] w, float[8,8] w2) => (float[n,8] y)
        { h = Gather(w, ids)  y = MatMul(h, w2) }
    """)
    done = quantize(model, "int8:mode=dynamic:min-size=0")
    assert done.result.counters == {"num-stored-other": 1, "num-quantized-embedding": 1}
