"""Static products whose weights are rounded for calibration data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import Dataset
from irtools.model import Model
from irtools.model.printer import print_model
from irtools.passes.quantization.ranges.arithmetic import dequantize, quantize_weight
from irtools.passes.quantization.ranges.rounding import Moments, rounded_codes
from irtools.passes.quantization.ranges.spec import PerAxis, weight_spec
from irtools.passmanager import PassContext, Pipeline, Plan

from .conftest import build, context, relative_error

GPTQ = "int8:mode=static:min-size=0:smooth=false:outliers=0:method=gptq"
VNNI = "ort-cpu:isa=vnni"
"""Without it scales hold for pairs of weights, and codes are not moved."""
LAYER = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[b,96] x, float[96,40] w, float[40] w_b) => (float[b,40] y) {
  h = MatMul(x, w)  y = Add(h, w_b)
}
"""


def correlated(seed: int = 1) -> np.ndarray:
    """Inputs [600, 96] that live mostly in an eighth of their space, with a mean."""
    base = np.random.default_rng(0).normal(size=(12, 96))
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(600, 12)).clip(-2, 2) @ base + 0.05 * rng.normal(size=(600, 96)) + 2
    return x.astype(np.float32)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("corrected", [True, False])
def test_codes_lose_less_than_the_nearest_ones(axis: int, *, corrected: bool) -> None:
    x = correlated().astype(np.float64)
    w = np.random.default_rng(3).normal(size=(96, 40)).astype(np.float32)
    array = w if axis == 1 else np.ascontiguousarray(w.T)
    nearest, q = quantize_weight(array, weight_spec(PerAxis(axis), "full"))
    moments = Moments(x.T @ x / len(x), x.mean(axis=0))
    codes, lost = rounded_codes("gptq", array, axis, q, moments, corrected=corrected)
    assert codes.dtype == np.int8 and codes.shape == array.shape
    errors = []
    for integers in (codes, nearest):
        error = array - dequantize(integers, q)
        errors.append(x @ (error if axis == 1 else error.T))
    np.testing.assert_allclose(lost, errors[0].mean(axis=0), atol=1e-3)
    left = [np.linalg.norm(e - corrected * e.mean(axis=0)) for e in errors]
    assert left[0] < 0.5 * left[1]


def test_outputs_keep_more(quantize, outputs) -> None:
    model, fresh = build(LAYER), correlated(2)
    wanted = outputs(model, x=fresh)
    errors = {}
    for method in ("rtn", "gptq"):
        done = quantize(model, GPTQ.replace("gptq", method), VNNI, x=correlated())
        errors[method] = relative_error(outputs(done.after, x=fresh), wanted)
        assert done.result.counters.get("num-rounded-for-data", 0) == (method == "gptq")
    assert errors["gptq"] < 0.9 * errors["rtn"]


def test_biases_take_up_what_is_lost_on_average(quantize, outputs) -> None:
    model = build(LAYER)
    done = quantize(model, GPTQ, VNNI, x=correlated())
    error = outputs(done.after, x=correlated()) - outputs(model, x=correlated())
    assert np.abs(error.mean(axis=0)).max() < 0.2 * error.std()


def test_only_where_too_little_is_kept(quantize) -> None:
    done = quantize(build(LAYER), GPTQ.replace("gptq", "auto"), VNNI, x=correlated())
    assert "num-rounded-for-data" not in done.result.counters


def test_by_itself_where_it_gains(quantize, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irtools.passes.quantization.for_data.least_gain", lambda kept: 0.5)
    done = quantize(build(LAYER), GPTQ.replace("gptq", "auto"), VNNI, x=correlated())
    assert done.result.counters["num-rounded-for-data"] == 1
    assert done.result.notes[-1].startswith("1 weight rounded for calibration data: ")


def test_products_with_a_range_for_each_token(outputs) -> None:
    """The same weights, the same moments: what is multiplied differs by a factor for each token."""
    model, fresh = build(LAYER), correlated(2)
    (pass_,) = Pipeline("int8:mode=token-wise:min-size=0:least-sqnr=none")
    ctx = context(VNNI, Dataset({"x": correlated()}))
    plan = pass_.plan(model, ctx)
    (decision,) = plan.decisions
    rounded = replace(decision, data={**decision.data, "rounding": "gptq"})
    errors = {}
    for method, made in (("rtn", decision), ("gptq", rounded)):
        after = model.clone()
        result = pass_.apply(after, replace(plan, decisions=(made,)), ctx)
        errors[method] = relative_error(outputs(after, x=fresh), outputs(model, x=fresh))
        assert result.counters.get("num-rounded-for-data", 0) == (method == "gptq")
    assert errors["gptq"] < 0.9 * errors["rtn"]


WIDE = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[b,96] x, float[96,400] w, float[400,96] w_v) => (float[b,96] y) {
  h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, w_v)
}
"""


def test_the_narrow_products_alone_where_all_would_take_long(
    quantize, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("irtools.passes.quantization.for_data.least_gain", lambda kept: 0.5)
    monkeypatch.setattr("irtools.passes.quantization.for_data.GROUP_BYTES", 8 * 97**2)
    done = quantize(build(WIDE), GPTQ.replace("gptq", "auto"), VNNI, x=correlated())
    assert done.result.counters["num-rounded-for-data"] == 1
    chosen = {d.subject: d.data.get("rounding") for d in done.result.plan.decisions}
    assert chosen == {"w": "gptq", "w_v": ""}
    assert done.result.plan.remedies[0].startswith("method=gptq, which rounds all weights")
    monkeypatch.setattr("irtools.passes.quantization.for_data.GROUP_BYTES", 8 * 97**2 - 1)
    done = quantize(build(WIDE), GPTQ.replace("gptq", "auto"), VNNI, x=correlated())
    assert "num-rounded-for-data" not in done.result.counters
    assert done.result.plan.remedies[0].startswith("method=gptq, which rounds all weights")


def test_a_stored_plan_asks_for_data_again() -> None:
    model = Model(build(LAYER))
    (pass_,) = Pipeline(GPTQ)
    ctx = context(VNNI, Dataset({"x": correlated()}))
    plan = Plan.from_json(pass_.plan(model.ir, ctx).to_json())
    texts = []
    for given in (ctx, ctx, PassContext.for_model(model, VNNI)):
        after = model.clone()
        result = pass_.apply(after.ir, plan, given)
        texts.append(print_model(after.ir))
        drawn = any("rounded for synthetic data" in note for note in result.notes)
        assert drawn == (given is not ctx)
    assert texts[0] == texts[1] != texts[2]


SHARED = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[b,96] x, float[96,96] w) => (float[b,96] y) { h = MatMul(x, w)  y = MatMul(h, w) }
"""
CONV = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[b,4,8,8] x, float[8,4,3,3] w) => (float[b,8,6,6] y) { y = Conv(x, w) }
"""

IMAGES = correlated()[:16, :64].reshape(4, 4, 8, 8)


@pytest.mark.parametrize(
    ("text", "x", "target"),
    [
        pytest.param(SHARED, correlated(), VNNI, id="two inputs"),
        pytest.param(CONV, correlated()[:16, :64].reshape(4, 4, 8, 8), VNNI, id="conv"),
        pytest.param(LAYER, correlated(), "ort-cpu:isa=avx2", id="pairs"),
    ],
)
def test_rounded_to_the_nearest_all_the_same(
    quantize, text: str, x: np.ndarray, target: str
) -> None:
    model: ir.Model = build(text)
    done = quantize(model, GPTQ, target, x=x)
    rtn = quantize(model, GPTQ.replace("gptq", "rtn"), target, x=x)
    assert "num-rounded-for-data" not in done.result.counters
    assert print_model(done.after) == print_model(rtn.after)
    assert done.result.notes[-1].startswith("no weight is rounded for data: ")
