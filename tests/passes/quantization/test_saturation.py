"""Weights of 8 bits on CPUs that add u8 x s8 products in saturating 16 bits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from irtools.analysis.int8_products import int8_products, saturating_products
from irtools.analysis.saturation import LARGEST_PAIR, may_saturate, worst_pairs
from irtools.backends.onnxruntime.target import OrtCpu
from irtools.model import Model
from irtools.passes.quantization.ranges.arithmetic import dequantize, quantize_weight
from irtools.passes.quantization.ranges.spec import PerAxis, WeightRange, weight_spec
from irtools.targets import Isa, RunnerOptions

from .conftest import build, relative_error
from .saturating import exact_product, saturating_product, worst_activations


def _weights(*shape: int, seed: int = 0, heavy: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = rng.standard_t(3, shape) if heavy else rng.normal(size=shape)
    return np.asarray(found, np.float32)


def _quantized(weight: np.ndarray, axis: int, weight_range: WeightRange) -> np.ndarray:
    return quantize_weight(weight, weight_spec(PerAxis(axis), weight_range))[0]


def _sqnr(weight: np.ndarray, axis: int, weight_range: WeightRange) -> float:
    integers, q = quantize_weight(weight, weight_spec(PerAxis(axis), weight_range))
    return -20 * float(np.log10(relative_error(dequantize(integers, q), weight)))


def test_the_emulation_saturates_as_the_instruction_does() -> None:
    x = np.array([[255, 255, 255, 255, 7]], np.uint8)
    w = np.array([[127], [127], [-128], [-128], [3]], np.int8)
    assert saturating_product(x, w) == 32767 - 32768 + 21
    assert exact_product(x, w) == 255 * (127 + 127 - 128 - 128) + 21
    # Products of different sign, and half the range, never saturate.
    assert saturating_product(x, np.array([[127], [-128], [64], [64], [0]], np.int8)) == (
        255 * (127 - 128 + 64 + 64)
    )


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (7, 5), (64, 32), (255, 16)])
def test_pairs_of_a_matrix_never_saturate(shape: tuple[int, int], heavy: bool) -> None:
    for seed, axis in itertools.product(range(4), (0, 1)):
        weight = _weights(*shape, seed=seed, heavy=heavy)
        integers = _quantized(weight if axis else weight.T, axis, "pairs")
        columns = integers if axis else integers.T
        assert int(worst_pairs(integers, axis).max()) <= LARGEST_PAIR
        assert not may_saturate(integers, axis)
        x = np.concatenate([worst_activations(columns), np.full((1, shape[0]), 255, np.uint8)])
        np.testing.assert_array_equal(saturating_product(x, columns), exact_product(x, columns))


def test_full_range_does_saturate_and_is_found() -> None:
    integers = _quantized(_weights(64, 32, heavy=False), 1, "full")
    x = worst_activations(integers)
    assert np.any(saturating_product(x, integers) != exact_product(x, integers))
    assert may_saturate(integers, 1)
    assert not may_saturate(_quantized(_weights(64, 32), 1, "7-bit"), 1)


@pytest.mark.parametrize(
    "shape", [(8, 3, 3, 3), (8, 4, 3, 3), (6, 5, 1, 1), (8, 1, 3, 3), (4, 3, 5)]
)
def test_kernels_are_safe_in_every_order_of_their_channels(shape: tuple[int, ...]) -> None:
    integers = _quantized(_weights(*shape, heavy=True), 0, "pairs")
    places = integers.reshape(shape[0], shape[1], -1)
    by_place = places.transpose(0, 2, 1)
    padded = np.pad(by_place, ((0, 0), (0, 0), (0, -shape[1] % 4)))
    for order in (places, by_place, padded):
        columns = order.reshape(shape[0], -1).T
        x = worst_activations(columns)
        np.testing.assert_array_equal(saturating_product(x, columns), exact_product(x, columns))


def test_an_order_that_is_not_looked_at_would_saturate() -> None:
    """Channel by channel the pairs differ in sign, place by place they do not."""
    kernel = np.array([[[127, -127], [127, -127]]], np.int8)  # [O=1, I=2, places=2]
    assert worst_pairs(kernel, 0) == 254
    assert may_saturate(kernel, 0)


def test_pairs_lose_less_than_seven_bits() -> None:
    weight = _weights(768, 64)
    full, pairs, seven = (_sqnr(weight, 1, r) for r in ("full", "pairs", "7-bit"))
    assert 5.5 < full - seven < 6.5
    assert full - pairs < 3.0
    assert pairs - seven > 3.0


def test_pairs_are_never_worse_than_seven_bits_and_at_best_as_good_as_eight() -> None:
    twins = np.repeat(_weights(32, 8), 2, axis=0)  # each weight next to its equal: the worst case
    _, pairs = quantize_weight(twins, weight_spec(PerAxis(1), "pairs"))
    _, seven = quantize_weight(twins, weight_spec(PerAxis(1), "7-bit"))
    assert np.all(pairs.scale <= seven.scale)
    apart = twins * np.tile([[1], [-1]], (32, 1)).astype(np.float32)  # opposite neighbours
    _, pairs = quantize_weight(apart, weight_spec(PerAxis(1), "pairs"))
    _, full = quantize_weight(apart, weight_spec(PerAxis(1)))
    np.testing.assert_array_equal(pairs.scale, full.scale)


def test_a_larger_scale_for_the_bias_stays_safe() -> None:
    weight = _weights(16, 4)
    floor = np.array([0, 0.01, 0.1, 1], np.float32)
    integers, q = quantize_weight(weight, weight_spec(PerAxis(1), "pairs"), floor)
    assert np.all(q.scale >= floor)
    assert not may_saturate(integers, 1)


TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[b,n,32] x, float[32,24] w1, float[24] w1_b, float[16,24] w2) => (float[b,n,16] y)
{ m = MatMul(x, w1)  h = Add(m, w1_b)  a = Relu(h)
  t = Transpose<perm=[1,0]>(w2)  y = MatMul(a, t) }
"""
CONV = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[b,3,8,8] x, float[8,3,3,3] w1, float[8,1,3,3] w2, float[8,4,1,1] w3) => (float[b,8,4,4] y)
{ a = Conv(x, w1)  b1 = Relu(a)  c = Conv<group=8>(b1, w2)  y = Conv<group=2>(c, w3) }
"""


@pytest.mark.parametrize("option", ["auto", "pairs", "true", "false"])
@pytest.mark.parametrize(
    ("text", "mode", "shape"),
    [
        (TEXT, "static", (4, 5, 32)),
        (TEXT, "dynamic", (4, 5, 32)),
        (TEXT, "token-wise", (4, 5, 32)),
        (CONV, "static", (4, 3, 8, 8)),
    ],
)
def test_models_for_a_cpu_without_vnni(
    quantize, outputs, text: str, mode: str, shape: tuple[int, ...], option: str
) -> None:
    x = _weights(*shape, seed=3).clip(-2, 2)
    model = build(text)
    done = quantize(
        model,
        f"int8:mode={mode}:min-size=0:reduce-range={option}",
        target="ort-cpu:isa=avx2",
        **({"x": x} if mode == "static" else {}),
    )
    found = {product.weight.name: product for product in int8_products(done.after)}
    assert len(found) == (2 if text is TEXT else 3)
    assert any(product.may_saturate for product in found.values()) == (option == "false")
    assert bool(saturating_products(done.after)) == (option == "false")
    top = max(int(np.abs(product.integers.astype(int)).max()) for product in found.values())
    assert (top <= 64) == (option == "true")
    # The runner computes a reference: exact sums, where this CPU itself would saturate as well.
    with OrtCpu(Isa.AVX2).runner(Model(done.after), RunnerOptions(exact=True, threads=1)) as runner:
        found_outputs = runner.run({"x": x})["y"]
    assert relative_error(found_outputs, outputs(model, x=x)) < 0.05
    notes = " ".join(done.result.notes)
    assert ("sums of neighbouring products" in notes) == (option in ("auto", "pairs"))
    assert ("7 bits" in notes) == (option == "true")


def test_a_stored_plan_keeps_its_range(quantize) -> None:
    from irtools.passes.quantization.forms.registry import read_decision

    x = _weights(4, 5, 32)
    done = quantize(build(TEXT), "int8:mode=static:min-size=0", target="ort-cpu:isa=avx2", x=x)
    assert done.result.plan is not None
    for decision in done.result.plan.decisions:
        data = read_decision(decision)
        assert data.form.to_data()["weight_range"] == "pairs"
        assert "pairs within 16 bits" in decision.action
        assert data.to_data() == decision.data


@pytest.mark.parametrize("embeddings", ["8", "4"])
def test_a_table_alone_says_nothing_of_products(quantize, embeddings: str) -> None:
    model = build(
        """
        <ir_version: 10, opset_import: ["" : 21]>
        g (int64[n] i, float[64,32] w) => (float[n,32] y) { y = Gather(w, i) }
        """
    )
    text = f"int8:min-size=0:embeddings={embeddings}"
    done = quantize(model, text, target="ort-cpu:isa=avx2")
    assert done.result.modified
    assert not any("16 bits" in note for note in done.result.notes)
