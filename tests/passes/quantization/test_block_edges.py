"""Weights in blocks where one condition decides: each was broken on purpose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir
import pytest

from irtools.passes.quantization.forms import weights
from irtools.passes.quantization.ranges import gptq
from irtools.passes.quantization.ranges.blocks import quantize_rows
from irtools.passes.quantization.ranges.gptq import Hessians
from irtools.passes.quantization.ranges.rounding import Second, rounded_in_blocks
from irtools.passes.quantization.ranges.spec import BlockSpec
from irtools.passes.quantization.sites.find import find_sites
from irtools.passes.quantization.sites.uses import Weight
from irtools.statistics import GramResult, Want

from .conftest import build, relative_error

HEAD = '<ir_version: 10, opset_import: ["" : 21]>'


def normal(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def stored(model: ir.Model, name: str) -> ir.TensorProtocol:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor


PRODUCT = f"{HEAD} g (float[n,64] x, float[64,48] w) => (float[n,48] y) {{ y = MatMul(x, w) }}"
TABLE = f"{HEAD} g (int64[n] ids, float[300,64] w) => (float[n,64] y) {{ y = Gather(w, ids) }}"
TIED = f"""{HEAD} g (int64[n] ids, float[300,64] w) => (float[n,300] y)
{{ x = Gather(w, ids)  a = Tanh(x)  t = Transpose(w)  y = MatMul(a, t) }}"""


@pytest.mark.parametrize("text", [PRODUCT, TABLE, TIED], ids=["product", "table", "tied"])
@pytest.mark.parametrize("options", ["", ":symmetric=true", ":embeddings=4", ":block=64"])
def test_the_gain_is_what_the_file_loses(quantize, text: str, options: str) -> None:
    model = build(text)
    done = quantize(model, f"int4:min-size=0{options}")
    (decision,) = done.result.plan.decisions
    before, after = (
        sum(v.const_value.nbytes for v in m.graph.initializers.values())
        for m in (model, done.after)
    )
    assert decision.gain == before - after


@pytest.mark.parametrize(("size", "quantized"), [(64 * 48, 1), (64 * 48 + 1, 0)])
def test_a_weight_of_the_smallest_size_is_quantized(quantize, size: int, quantized: int) -> None:
    done = quantize(build(PRODUCT), f"int4:min-size={size}")
    assert done.result.counters.get("num-quantized-matmul", 0) == quantized


@pytest.mark.parametrize(
    ("low", "high", "half"),
    [(-1.0, 1.0, True), (-5000.0, 1.0, False), (-1.0, 5000.0, False), (-0.01, 0.01, False)],
)
def test_scales_of_a_table_are_half_where_its_values_are_ordinary(
    quantize, outputs, low: float, high: float, half: bool
) -> None:
    w = np.random.default_rng(0).uniform(low, high, (300, 64))
    model = build(TABLE, w=w)
    done = quantize(model, "int4:min-size=0:embeddings=4")
    assert (stored(done.after, "w_scale").dtype == ir.DataType.FLOAT16) == half
    ids = np.arange(300)
    assert relative_error(outputs(done.after, ids=ids), outputs(model, ids=ids)) < 0.08


def test_costs_come_from_channels_all_over_the_weight(quantize, monkeypatch) -> None:
    """The first columns are on the grid of their blocks, and the last ones are not."""
    monkeypatch.setattr(weights, "SLAB_ELEMENTS", 8 * 64)
    grid = np.tile(np.arange(-8, 8), (24, 4)).T.astype(np.float32)
    w = np.concatenate([grid, normal(64, 24)], axis=1)
    done = quantize(build(PRODUCT, w=w), "int4:min-size=0:symmetric=true")
    (decision,) = done.result.plan.decisions
    assert decision.cost > 1e-5


def test_the_cost_is_that_of_the_reader_who_loses_most(quantize) -> None:
    """Two inputs of one weight: one uses channels that lose nothing, one the others."""
    model = build(f"""{HEAD} g (float[n,64] a, float[n,64] b, float[64,48] w)
    => (float[n,48] y) {{ p = MatMul(a, w)  q = MatMul(b, w)  y = Add(p, q) }}""")
    w = normal(64, 48)
    w[:32] = np.tile(np.arange(-8, 8), (48, 2)).T
    tensor = ir.tensor(w, name="w")
    model.graph.initializers["w"].const_value = tensor
    easy, hard = normal(16, 64), normal(16, 64, seed=2)
    easy[:, 32:], hard[:, :32] = 0, 0
    costs = {}
    for name, (a, b) in {"both": (easy, hard), "hard": (hard, hard), "easy": (easy, easy)}.items():
        done = quantize(model, "int4:min-size=0:symmetric=true", a=a, b=b)
        costs[name] = done.result.plan.decisions[0].cost
    assert costs["both"] == costs["hard"] > 100 * costs["easy"]


def test_blocks_stand_before_the_first_of_several_readers(quantize, outputs) -> None:
    model = build(f"""{HEAD} g (float[n,64] x, float[64,64] w) => (float[n,64] y)
    {{ p = MatMul(x, w)  t = Tanh(p)  y = MatMul(t, w) }}""")
    done = quantize(model, "int4:min-size=0")
    assert done.result.counters["num-quantized-matmul"] == 2
    x = normal(5, 64)
    assert relative_error(outputs(done.after, x=x), outputs(model, x=x)) < 0.3


@pytest.mark.parametrize("columns", [47, 48])
@pytest.mark.parametrize("options", ["", ":symmetric=true"])
def test_odd_numbers_of_channels_are_packed(quantize, outputs, columns: int, options: str) -> None:
    model = build(PRODUCT.replace("48", str(columns)))
    done = quantize(model, f"int4:min-size=0{options}")
    x = np.eye(64, dtype=np.float32)
    w = model.graph.initializers["w"].const_value.numpy()
    spec = BlockSpec(4, 32, "symmetric" if options else "affine")
    blocks = quantize_rows(w.T, spec)
    codes = stored(done.after, "w_quantized").numpy().astype(np.int32)
    np.testing.assert_array_equal(codes, blocks.codes.T)
    assert relative_error(outputs(done.after, x=x), w) < 0.2


class Service:
    """Answers with given second moments, and counts how often it was asked."""

    synthetic = False

    def __init__(self, moments: Mapping[str, tuple[np.ndarray, int]]) -> None:
        self._moments = moments
        self.asked: list[list[str]] = []

    def collect(self, wants: Iterable[Want]) -> dict[Want, object]:
        wants = list(wants)
        self.asked.append([want.value for want in wants])
        found = {}
        for want in wants:
            mean, count = self._moments[want.value]
            xx = np.zeros((len(mean) + 1,) * 2)
            xx[:-1, :-1], xx[-1, -1] = mean * count, count
            found[want] = GramResult(xx, None, None, count)
        return found


def moments(seed: int, count: int) -> tuple[np.ndarray, int]:
    x = normal(200, 64, seed=seed) @ normal(64, 64, seed=seed + 10)
    return x.T.astype(np.float64) @ x / len(x), count


def weights_of(text: str) -> dict[str, Weight]:
    return {weight.name: weight for weight in find_sites(build(text)).weights}


CHAIN = f"""{HEAD} g (float[n,64] a, float[64,64] w1, float[64,64] w2, float[64,64] w3)
=> (float[n,64] y) {{ b = MatMul(a, w1)  c = MatMul(b, w2)  y = MatMul(c, w3) }}"""
ROWS, FORM = normal(6, 64, seed=7), BlockSpec(4, 16)


def test_each_input_has_a_rounding_of_its_own() -> None:
    found = weights_of(CHAIN)
    service = Service({"a": moments(1, 9), "b": moments(2, 9), "c": moments(3, 9)})
    hessians = Hessians(service, found.values())
    for index, weight in enumerate(found.values(), start=1):
        wanted = rounded_in_blocks("gptq", Second(*moments(index, 9)))(ROWS, FORM).codes
        found_rounding = rounded_in_blocks("gptq", hessians.moments_of(weight).around_zero)
        np.testing.assert_array_equal(found_rounding(ROWS, FORM).codes, wanted)
    assert service.asked == [["a", "b", "c"]]


def test_moments_are_collected_as_memory_allows(monkeypatch) -> None:
    monkeypatch.setattr(gptq, "GROUP_BYTES", 2 * 8 * 65**2)
    found = weights_of(CHAIN)
    service = Service({"a": moments(1, 9), "b": moments(2, 9), "c": moments(3, 9)})
    hessians = Hessians(service, found.values())
    for weight in found.values():
        hessians.moments_of(weight)
    assert service.asked == [["a", "b"], ["c"]]


def test_readers_with_several_inputs_count_by_their_samples() -> None:
    found = weights_of(f"""{HEAD} g (float[n,64] a, float[n,64] b, float[n,64] c, float[64,64] w)
    => (float[n,64] y) {{ p = MatMul(a, w)  q = MatMul(b, w)  r = MatMul(c, w)
    s = Add(p, q)  y = Add(s, r) }}""")
    given = {"a": moments(1, 10), "b": moments(2, 30), "c": moments(3, 60)}
    moved = Hessians(Service(given), found.values()).moments_of(found["w"])
    rounding = rounded_in_blocks("gptq", moved.around_zero)
    joint = sum(mean * count for mean, count in given.values()) / 100
    np.testing.assert_array_equal(
        rounding(ROWS, FORM).codes, rounded_in_blocks("gptq", Second(joint, 100))(ROWS, FORM).codes
    )


def test_moments_are_those_of_the_model_before_any_weight_changed(quantize, monkeypatch) -> None:
    """Collected one by one, the later ones must not see the rounding of the earlier."""
    model, x = build(CHAIN), normal(100, 64)
    models = []
    for size in (gptq.GROUP_BYTES, 1):
        monkeypatch.setattr(gptq, "GROUP_BYTES", size)
        models.append(quantize(model, "int4:min-size=0:method=gptq", a=x).after)
    for name in ("w1_quantized", "w2_quantized", "w3_quantized"):
        np.testing.assert_array_equal(*(stored(m, name).numpy() for m in models))
