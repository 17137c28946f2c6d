"""Scales, zero points, rounding and saturation, against their definition and the runtime."""

from __future__ import annotations

import tracemalloc

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from irtools.passes.quantization.ranges import arithmetic
from irtools.passes.quantization.ranges.arithmetic import (
    SCALE_FLOOR,
    bias_scale_floor,
    dequantize,
    qparams_from_range,
    quantize,
    quantize_bias,
    quantize_weight,
)
from irtools.passes.quantization.ranges.spec import (
    ACTIVATION_S8,
    ACTIVATION_U8,
    PerAxis,
    PerBlock,
    PerTensor,
    QuantSpec,
    weight_spec,
)

from .conftest import build, session

U8_SYMMETRIC = QuantSpec(ir.DataType.UINT8, PerTensor(), symmetric=True)
SPECS = (ACTIVATION_U8, ACTIVATION_S8, U8_SYMMETRIC, weight_spec(PerTensor(), "7-bit"))

reasonable = st.floats(-1e6, 1e6, width=32)
bounds = st.tuples(reasonable, reasonable).map(sorted)


@given(bounds, st.sampled_from(SPECS))
def test_zero_is_exact(bound: list[float], spec: QuantSpec) -> None:
    q = qparams_from_range(*bound, spec)
    zero = np.zeros(1, np.float32)
    assert dequantize(quantize(zero, q), q) == 0


@given(bounds, st.sampled_from(SPECS), st.floats(0, 1))
def test_error_is_at_most_half_a_step_inside_the_range(
    bound: list[float], spec: QuantSpec, where: float
) -> None:
    low, high = min(bound[0], 0.0), max(bound[1], 0.0)
    q = qparams_from_range(low, high, spec)
    x = np.array([low + where * (high - low)], np.float32)
    error = np.abs(dequantize(quantize(x, q), q) - x)
    # Rounding of the zero point moves an affine range by up to half a step at one end.
    allowed = 0.5 if spec.symmetric else 1.0
    assert error <= allowed * q.scale * (1 + 1e-5) + 1e-6 * np.abs(x)


@given(arrays(np.float32, 20, elements=st.floats(-50, 50, width=32)), st.sampled_from(SPECS))
def test_quantizing_what_was_dequantized_changes_nothing(x: np.ndarray, spec: QuantSpec) -> None:
    q = qparams_from_range(float(x.min()), float(x.max()), spec)
    integers = quantize(x, q)
    np.testing.assert_array_equal(quantize(dequantize(integers, q), q), integers)


@given(arrays(np.float32, 20, elements=st.floats(-50, 50, width=32)))
def test_rounding_keeps_the_order(x: np.ndarray) -> None:
    q = qparams_from_range(-10, 10, ACTIVATION_U8)
    assert (np.diff(quantize(np.sort(x), q).astype(int)) >= 0).all()


def test_rounding_is_half_to_even_and_saturates() -> None:
    q = qparams_from_range(-127, 127, ACTIVATION_S8)
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 127.4, 1e9, -1e9, np.inf, -np.inf], np.float32)
    assert quantize(x, q).tolist() == [0, 2, 2, 0, -2, 127, 127, -127, 127, -127]


@pytest.mark.parametrize(
    ("spec", "limits"),
    [
        (ACTIVATION_U8, (0, 255)),
        (ACTIVATION_S8, (-127, 127)),
        (weight_spec(PerTensor(), "7-bit"), (-64, 64)),
        (QuantSpec(ir.DataType.INT8, symmetric=False), (-128, 127)),
    ],
)
def test_limits(spec: QuantSpec, limits: tuple[int, int]) -> None:
    assert spec.limits == limits


def test_seven_bits_never_saturate_sixteen() -> None:
    """vpmaddubsw adds two u8 x s8 products into int16."""
    _, top = weight_spec(PerTensor(), "7-bit").limits
    assert 2 * 255 * top <= 32767
    _, full = weight_spec(PerTensor()).limits
    assert 2 * 255 * full > 32767


@given(bounds)
@settings(max_examples=25, deadline=None)
def test_equals_the_runtime_bit_by_bit(bound: list[float]) -> None:
    q = qparams_from_range(*bound, ACTIVATION_U8)
    model = build("""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[n] x, float s, uint8 z) => (uint8[n] q, float[n] y)
        { q = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z) }
    """)
    low, high = bound[0] - 1, bound[1] + 1
    x = np.linspace(low, high, 257, dtype=np.float32)
    wanted, back = session(model, exact=True).run(None, {"x": x, "s": q.scale, "z": q.zero_point})
    np.testing.assert_array_equal(quantize(x, q), wanted)
    np.testing.assert_array_equal(dequantize(wanted, q), back)


@pytest.mark.parametrize(
    ("spec", "scale", "zero"),
    [
        (ACTIVATION_U8, 4 / 255, 64),
        (ACTIVATION_S8, 3 / 127, 0),
        (U8_SYMMETRIC, 3 / 127, 128),
        (weight_spec(PerTensor(), "7-bit"), 3 / 64, 0),
        (QuantSpec(ir.DataType.INT8, symmetric=False), 4 / 255, -64),
    ],
)
def test_parameters_of_a_range(spec: QuantSpec, scale: float, zero: int) -> None:
    q = qparams_from_range(-1.0, 3.0, spec)
    assert q.scale == np.float32(scale) and q.zero_point == zero
    assert q.zero_point.dtype == spec.dtype.numpy()


@pytest.mark.parametrize("bad", [(np.nan, 1.0), (0.0, np.inf), (2.0, 1.0)])
def test_what_is_no_range_is_refused(bad: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="is not a range"):
        qparams_from_range(*bad, ACTIVATION_U8)


@pytest.mark.parametrize("spec", SPECS)
def test_an_empty_range_has_a_scale(spec: QuantSpec) -> None:
    q = qparams_from_range(0.0, 0.0, spec)
    assert q.scale == SCALE_FLOOR
    assert np.isfinite(dequantize(quantize(np.ones(1, np.float32), q), q)).all()


def test_one_scale_per_channel_and_per_block() -> None:
    weight = np.array([[1, 20], [-3, 4], [5, -6], [100, 8]], np.float32)
    _, columns = quantize_weight(weight, weight_spec(PerAxis(1)))
    np.testing.assert_allclose(columns.scale * 127, [100, 20], rtol=1e-6)
    integers, blocks = quantize_weight(weight, weight_spec(PerBlock(0, 2)))
    np.testing.assert_allclose(blocks.scale * 127, [[3, 20], [100, 8]], rtol=1e-6)
    assert integers.tolist() == [[42, 127], [-127, 25], [6, -95], [127, 127]]


def test_dead_channels_take_the_usual_scale() -> None:
    weight = np.array([[1.0, 0.0], [-2.0, 0.0]], np.float32)
    integers, q = quantize_weight(weight, weight_spec(PerAxis(1)))
    assert q.scale[0] == q.scale[1]
    assert not integers[:, 1].any()
    _, nothing = quantize_weight(np.zeros((2, 2), np.float32), weight_spec(PerAxis(1)))
    assert (nothing.scale > 0).all()


def test_bias_stays_inside_int32() -> None:
    """A tiny weight with a large bias: s_w is enlarged."""
    weight = np.array([[1e-7, 1.0]], np.float32)
    bias = np.array([3.0, 3.0], np.float32)
    step = 1e-4
    floor = bias_scale_floor(bias, step)
    _, q = quantize_weight(weight, weight_spec(PerAxis(1)), floor)
    scale = np.float32(step) * q.scale
    assert np.abs(quantize_bias(bias, scale).astype(np.int64)).max() <= 2**30
    np.testing.assert_allclose(quantize_bias(bias, scale) * scale.astype(float), bias, rtol=1e-6)
    # The other channel keeps its own scale.
    np.testing.assert_allclose(q.scale[1], 1 / 127, rtol=1e-6)


@pytest.mark.parametrize("granularity", [PerTensor(), PerAxis(0), PerAxis(1), PerBlock(0, 4)])
def test_large_tensors_are_quantized_in_pieces_to_the_same_integers(
    granularity: PerTensor | PerAxis | PerBlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = np.random.default_rng(0).normal(size=(24, 10)).astype(np.float32)
    whole, q = quantize_weight(weight, weight_spec(granularity))
    monkeypatch.setattr(arithmetic, "_PIECE", 70)
    pieces, same = quantize_weight(weight, weight_spec(granularity))
    np.testing.assert_array_equal(pieces, whole)
    np.testing.assert_array_equal(same.scale, q.scale)


def test_quantizing_a_large_weight_takes_no_copy_of_it() -> None:
    weight = np.random.default_rng(0).normal(size=(4096, 2048)).astype(np.float32)
    tracemalloc.start()
    quantize_weight(weight, weight_spec(PerAxis(0)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < weight.size + weight.nbytes // 3
