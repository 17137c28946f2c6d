"""Weights stored in floats of 8 bits. What all forms of storage share is in test_store.py."""

from __future__ import annotations

import dataclasses

import ml_dtypes
import numpy as np
import pytest

from irtools.backends.onnxruntime.target import OrtCpu
from irtools.model.printer import print_model
from irtools.passes.quantization.forms.fp8 import Fp8
from irtools.passes.quantization.forms.stored8 import Stored8
from irtools.passes.quantization.store import Store
from irtools.targets import Capabilities

from .conftest import build, context

FP8 = "store:form=fp8:min-size=0"


def head(opset: int = 17) -> str:
    return f'<ir_version: 8, opset_import: ["" : {opset}]> '


CONV = head() + "g (float[1,3,2] x, float[2,3,1] w) => (float[1,2,2] y) { y = Conv(x, w) }"


def kept_db(form: Fp8 | Stored8, array: np.ndarray) -> float:
    return float(-10 * np.log10(form.lost(array.astype(np.float32))))


def test_golden(quantize) -> None:
    w = np.array([[[448.0], [0.0], [3.4]], [[-224.0], [1.0], [0.51]]])
    done = quantize(build(CONV, w=w), FP8)
    lines = [line.split('  "')[0].strip() for line in print_model(done.after).splitlines()]
    assert [line for line in lines if " = " in line] == [
        "w_quantized: float8e4m3fn[2, 3, 1] = [448, 0, 3.5, -448, 2, 1]",
        "w_scale: float32[2, 1, 1] = [1.0, 0.5]",
        "w_wide = Cast<to=10>(w_quantized)",
        "w_integers = Cast<to=1>(w_wide)",
        "w_dequantized = Mul(w_integers, w_scale)",
        "y = Conv(x, w_dequantized)",
    ]
    assert done.after.graph.opset_imports[""] == 19
    assert done.after.ir_version >= 9
    assert "opset raised from 17 to 19" in done.result.notes
    (decision,) = done.result.plan.decisions
    assert decision.action == "e4m3 per index of axis 0, stored, expanded at loading"


@pytest.mark.parametrize("draw", ["normal", "laplace", "uniform", "standard_t"])
def test_it_keeps_31_decibels_whatever_the_distribution(draw: str) -> None:
    rng = np.random.default_rng(0)
    array = {
        "normal": rng.normal(size=(64, 256)),
        "laplace": rng.laplace(size=(64, 256)),
        "uniform": rng.uniform(-1, 1, size=(64, 256)),
        "standard_t": rng.standard_t(2, size=(64, 256)),
    }[draw]
    assert 30.8 < kept_db(Fp8((0,)), array) < 35


def test_small_weights_survive_next_to_large_ones() -> None:
    array = np.full((4, 1024), 0.1) * np.random.default_rng(0).normal(size=(4, 1024))
    array[:, 0] = 20
    rest = array[:, 1:]
    for form, good in ((Fp8((0,)), True), (Stored8((0,)), False)):
        error = form.encode(array.astype(np.float32)).values()[:, 1:] - rest
        assert (10 * np.log10((rest**2).sum() / (error**2).sum()) > 25) == good


def test_codes_are_the_nearest_of_their_type() -> None:
    grid = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    grid = np.sort(grid[np.isfinite(grid)])
    array = np.random.default_rng(1).normal(size=(3, 50)).astype(np.float32)
    codes = Fp8((0,)).encode(array)
    assert codes.scale is not None and codes.scale.shape == (3, 1)
    steps = array / codes.scale
    best = np.abs(steps[..., None] - grid).min(axis=-1)
    np.testing.assert_allclose(np.abs(codes.numbers.astype(np.float32) - steps), best, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_zeros_and_halves(dtype: type[np.floating]) -> None:
    array = np.array([[0, 0], [1, -3], [6e4, 1]], dtype)
    form = Fp8((0,))
    values = form.encode(array).values()
    assert np.isfinite(values).all() and (values[0] == 0).all()
    np.testing.assert_allclose(values, array.astype(np.float32), rtol=1 / 16, atol=0.5)


def test_a_target_that_is_not_known_to_read_it_leaves_weights_alone(quantize) -> None:
    done = quantize(build(CONV), FP8, "ort-tensorrt")
    assert not done.result.modified
    assert done.result.counters == {"num-skipped-target": 1}


def test_codes_are_read_directly_where_no_runtime_keeps_them() -> None:
    class Direct(OrtCpu):
        @property
        def capabilities(self) -> Capabilities:
            return dataclasses.replace(super().capabilities, hides_stored_codes=False)

    ctx = context("ort-cpu", None)
    ctx.target = Direct()
    model = build(CONV)
    Store(form="fp8", min_size=0).run(model, ctx)
    assert [node.op_type for node in model.graph] == ["Cast", "Mul", "Conv"]


def test_a_model_whose_opset_cannot_be_raised_stays_and_is_counted(quantize) -> None:
    model = build(
        '<ir_version: 8, opset_import: ["" : 11]> '
        "g (float[1,3,2] x, float[2,3,1] w) => (float[1,2,2] y) "
        "{ c = Conv(x, w) y = Softmax(c) }"
    )
    done = quantize(model, FP8)
    assert not done.result.modified
    assert done.result.counters == {"num-skipped-opset": 1}
    assert "opset 19 is needed, the model has 11" in " ".join(done.result.notes)


def test_a_weight_of_a_branch_is_a_constant_of_its_body(quantize, outputs) -> None:
    numbers = ", ".join(f"{v:.3f}" for v in np.random.default_rng(0).normal(size=64))
    model = build(
        head()
        + "g (bool c, float[2,8] x) => (float[2,8] y) { y = If (c) <then_branch = t () => "
        "(float[2,8] a) { k = Constant<value = float[8,8] {N}>() a = MatMul(x, k) }, "
        "else_branch = e () => (float[2,8] b) { b = Tanh(x) }> }".replace("N}>", numbers + "}>")
    )
    done = quantize(model, FP8)
    assert done.result.counters == {"num-stored-subgraph": 1}
    feeds = {"c": np.array(True), "x": np.ones((2, 8), np.float32)}
    for exact in (True, False):
        found = outputs(done.after, exact=exact, **feeds)
        assert 0 < np.abs(found - outputs(model, **feeds)).max() < 0.5
