"""GPTQ: less error of the output than rounding to the nearest, in the same form."""

from __future__ import annotations

import numpy as np
import pytest

from irtools.passes.quantization.ranges.blocks import dequantize_rows, quantize_rows
from irtools.passes.quantization.ranges.factor import shrunk
from irtools.passes.quantization.ranges.rounding import Second, rounded_in_blocks
from irtools.passes.quantization.ranges.spec import BlockSpec

from .conftest import build, relative_error

FORMS = (BlockSpec(4, 16), BlockSpec(4, 32, "affine"))


def correlated(samples: int, channels: int) -> np.ndarray:
    """Inputs that live mostly in a quarter of their space, as activations do."""
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(samples, channels // 4)) @ rng.normal(size=(channels // 4, channels))
    noise = 0.3 * rng.normal(size=(samples, channels))
    return ((mixed + noise) * rng.uniform(0.2, 3, channels)).astype(np.float32)


@pytest.mark.parametrize("spec", FORMS)
def test_less_error_on_the_data_than_the_nearest_codes(spec: BlockSpec) -> None:
    x = correlated(400, 256)
    rows = np.random.default_rng(1).normal(size=(24, 256)).astype(np.float32)
    found = rounded_in_blocks("gptq", Second(x.T.astype(np.float64) @ x / len(x)))(rows, spec)
    nearest = quantize_rows(rows, spec)
    np.testing.assert_array_equal(found.scale, nearest.scale)
    wanted = x @ rows.T
    errors = [relative_error(x @ dequantize_rows(b).T, wanted) for b in (found, nearest)]
    assert errors[0] < 0.5 * errors[1]
    low, high = (-8, 7) if found.zero_point is None else (0, 15)
    assert found.codes.min() >= low and found.codes.max() <= high


@pytest.mark.parametrize("spec", FORMS)
def test_equals_the_sweep_written_out(spec: BlockSpec) -> None:
    """Column by column with the whole inverse, as the paper derives it."""
    x = correlated(200, 64)
    rows = np.random.default_rng(2).normal(size=(5, 64)).astype(np.float32)
    hessian = x.T.astype(np.float64) @ x / len(x)
    found = rounded_in_blocks("gptq", Second(hessian))(rows, spec)
    fixed = quantize_rows(rows, spec)
    order = np.argsort(-np.diag(hessian), kind="stable")
    damped = hessian + np.eye(64) * 0.01 * np.diag(hessian).mean()
    w, codes = rows.astype(np.float64), np.zeros_like(fixed.codes)
    left = list(order)
    while left:
        k = left[0]
        inverse = np.linalg.inv(damped[np.ix_(left, left)])
        scale = fixed.scale[:, k // spec.block]
        zero = 0 if fixed.zero_point is None else fixed.zero_point[:, k // spec.block].astype(float)
        low, high = (-8, 7) if fixed.zero_point is None else (0, 15)
        stored = np.clip(np.rint(w[:, k] / scale) + zero, low, high)
        error = (w[:, k] - (stored - zero) * scale) / inverse[0, 0]
        w[:, left] -= np.outer(error, inverse[0])
        codes[:, k] = stored
        left = left[1:]
    # float32 against float64: a code on the edge between two may fall to either side.
    assert np.mean(found.codes != codes) < 0.02


def test_correlations_of_few_rows_are_not_trusted() -> None:
    """Those of independent channels are chance: codes for them are worse on other data."""
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(24, 128)).astype(np.float32)
    x, fresh = rng.normal(size=(2, 160, 128)).astype(np.float32)
    moments = x.T.astype(np.float64) @ x / len(x)
    errors = {
        count: relative_error(fresh @ dequantize_rows(found).T, fresh @ rows.T)
        for count in (None, len(x))
        if (found := rounded_in_blocks("gptq", Second(moments, count))(rows, FORMS[0]))
    }
    nearest = dequantize_rows(quantize_rows(rows, FORMS[0]))
    by_nearest = relative_error(fresh @ nearest.T, fresh @ rows.T)
    assert errors[None] > 1.3 * by_nearest > 1.2 * errors[160]


def test_correlations_of_many_rows_are_kept() -> None:
    x = correlated(4000, 64)
    moments = x.T.astype(np.float64) @ x / len(x)
    assert relative_error(shrunk(moments, len(x)), moments) < 0.01
    assert np.isfinite(shrunk(np.zeros((8, 8)), 3)).all()


def test_inputs_that_are_always_zero() -> None:
    rows = np.random.default_rng(3).normal(size=(4, 32)).astype(np.float32)
    found = rounded_in_blocks("gptq", Second(np.zeros((32, 32))))(rows, BlockSpec(4, 16))
    np.testing.assert_array_equal(found.codes, quantize_rows(rows, BlockSpec(4, 16)).codes)


def test_the_pass_rounds_for_its_data(quantize, outputs) -> None:
    model = build("""
    <ir_version: 10, opset_import: ["" : 21]>
    g (float[n,128] x, float[128,64] w_q, float[128,64] w_k) => (float[n,64] y)
    { q = MatMul(x, w_q)  k = MatMul(x, w_k)  y = Add(q, k) }
    """)
    x = correlated(300, 128)
    wanted = outputs(model, x=x)
    errors = {}
    for method in ("rtn", "gptq"):
        done = quantize(model, f"int4:min-size=0:method={method}", x=x)
        assert done.result.counters["num-quantized-matmul"] == 2
        errors[method] = relative_error(outputs(done.after, x=x), wanted)
    assert errors["gptq"] < 0.6 * errors["rtn"]
