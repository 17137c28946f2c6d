"""Products of one input become one, with the same numbers, and only where that was timed faster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Literal

import numpy as np
import onnx_ir as ir
import pytest

from irtools.measure.base import LatencyResult, Ratio
from irtools.model import Model
from irtools.passes.projections import merge as merging
from irtools.passes.projections.merge import MergeProjections
from irtools.passmanager import PassContext, Pipeline
from irtools.passmanager.manager import PassManager
from irtools.targets import Isa, RunnerOptions, find_target
from irtools.testing import apply_pass, read_model

ALWAYS = MergeProjections(when="always")
TARGET = "ort-cpu:isa=vnni"
OPEN = """
<ir_version: 10, opset_import: ["" : OPSET, "com.microsoft" : 1]>
block (
  float[B,S,64] x, float[64,96] w1, float[64,32] w2, float[64,32] w3, float[96] b1, float[32] b2,
  float[32] b3, float[64,32] w4, float[64,32] w5, float[64,32] w6, float[64,32] w7, float half,
  float[96,64] t1, float[32,64] t2, int64[2] rows, float[64] v1, float[64] v2
) => ("""
PLAIN = "q = MatMul(x, w1)  k = MatMul(x, w2)  v = MatMul(x, w3)"
BIASED = """
  q0 = MatMul(x, w1)  k0 = MatMul(x, w2)  v0 = MatMul(x, w3)
  q = Add(q0, b1)  k = Add(k0, b2)  v = Add(b3, v0)
"""
SOME_BIASED = """
  q0 = MatMul(x, w1)  k = MatMul(x, w2)  v0 = MatMul(x, w3)
  q = Add(q0, b1)  v = Add(v0, b3)
"""
GEMM = """
  flat = Reshape(x, rows)
  q = Gemm<transB=1>(flat, t1, b1)  k = Gemm<transB=1>(flat, t2)
"""
END = "c = Concat<axis=-1>(q, k, v)  y = Tanh(c)"
GEMM_END = "c = Concat<axis=-1>(q, k)  y = Tanh(c)"

Run = Callable[..., Model]


def block(body: str, outputs: str = "float[B,S,N] y", opset: int = 21) -> Model:
    rng = np.random.default_rng(0)
    shapes = {f"w{place}": (64, 32) for place in range(2, 8)}
    shapes |= {"w1": (64, 96), "t1": (96, 64), "t2": (32, 64), "v1": (64,), "v2": (64,)}
    shapes |= {"b1": (96,), "b2": (32,), "b3": (32,)}
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    numbers = {"half": np.asarray(0.5, np.float32), "rows": np.asarray([-1, 64])}
    text = f"{OPEN.replace('OPSET', str(opset))}{outputs}) {{ {body} }}"
    model = read_model(text, weights | numbers)
    for value in [v for v in model.ir.graph.initializers.values() if not v.uses()]:
        del model.ir.graph.initializers[value.name]
    return model


@pytest.fixture
def prepared(make_context: Callable[..., PassContext]) -> Run:
    """A model after passes that need no data."""

    def make(body: str, passes: str, **form: str) -> Model:
        steps = PassManager(Pipeline.parse(passes), ()).run(block(body, **form), make_context())
        return steps[-1].model

    return make


@pytest.fixture
def merged(make_context: Callable[..., PassContext]) -> Callable[[Model], Model]:
    """A model after the pass, which must not change a number of it on either runtime."""

    def make(before: Model) -> Model:
        after = Model(before.ir.clone())
        assert apply_pass(ALWAYS, after.ir, make_context(TARGET)).modified
        again = Model(after.ir.clone())
        assert not apply_pass(ALWAYS, again.ir, make_context(TARGET)).modified
        for exact in (True, False):
            for name, expected in outputs(before, exact).items():
                found = outputs(after, exact)[name]
                np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        return after

    return make


def outputs(model: Model, exact: bool = True, target: str = TARGET) -> Mapping[str, np.ndarray]:
    x = np.random.default_rng(1).standard_normal((2, 3, 64), np.float32)
    options, found = RunnerOptions(threads=1, exact=exact), find_target(target, check=False)
    if not exact:
        model = Model(model.ir.clone())
        found.lower(model.ir)
    with found.runner(model, options) as runner:
        return runner.run({"x": x})


def operators(model: Model) -> Counter[str]:
    return Counter(node.op_type for node in model.ir.graph)


def notes_of(model: Model, pass_: MergeProjections, ctx: PassContext) -> tuple[str, ...]:
    return apply_pass(pass_, model.ir, ctx).notes


@pytest.mark.parametrize("body", [PLAIN, BIASED, SOME_BIASED], ids=["plain", "biased", "some"])
def test_three_become_one(body: str, merged: Callable[[Model], Model]) -> None:
    after = merged(block(body + END))
    bias = {"Add": 1} if "Add" in body else {}
    assert operators(after) == {"MatMul": 1, "Split": 1, "Concat": 1, "Tanh": 1} | bias


def test_golden(merged: Callable[[Model], Model]) -> None:
    lines = [line.strip() for line in merged(block(SOME_BIASED + END)).text().splitlines()]
    assert [line.partition('  "')[0] for line in lines if " = " in line and ": " not in line] == [
        "q0_merged = MatMul(x, w1_merged)",
        "q_merged = Add(q0_merged, b1_merged)",
        "q, k, v = Split<axis=-1>(q_merged, q_merged_sizes)",
        "c = Concat<axis=-1>(q, k, v)",
        "y = Tanh(c)",
    ]


def test_columns_are_those_that_were(merged: Callable[[Model], Model]) -> None:
    before = block(SOME_BIASED + END)
    own = {name: v.const_value.numpy() for name, v in before.ir.graph.initializers.items()}
    found = merged(before).ir.graph.initializers
    np.testing.assert_array_equal(
        found["w1_merged"].const_value.numpy(), np.hstack([own["w1"], own["w2"], own["w3"]])
    )
    np.testing.assert_array_equal(
        found["b1_merged"].const_value.numpy(),
        np.hstack([own["b1"], np.zeros(32, np.float32), own["b3"]]),
    )


def test_split_before_opset_13(merged: Callable[[Model], Model]) -> None:
    (split,) = (n for n in merged(block(BIASED + END, opset=12)).ir.graph if n.op_type == "Split")
    assert split.attributes["split"].as_ints() == (96, 32, 32)


def test_gemm_with_turned_weights(merged: Callable[[Model], Model]) -> None:
    after = merged(block(GEMM + GEMM_END, "float[M,N] y"))
    assert operators(after)["Gemm"] == 1
    shape = after.ir.graph.initializers["t1_merged"].shape
    assert shape is not None and tuple(shape) == (128, 64)


def test_results_of_the_model_keep_their_names(merged: Callable[[Model], Model]) -> None:
    after = merged(block(BIASED, "float[B,S,96] q, float[B,S,32] k, float[B,S,32] v"))
    assert [value.name for value in after.ir.graph.outputs] == ["q", "k", "v"]


def test_at_most_four_become_one(merged: Callable[[Model], Model]) -> None:
    places = range(2, 8)
    products = "  ".join(f"p{i} = MatMul(x, w{i})  r{i} = Exp(p{i})" for i in places)
    joined = ", ".join(f"r{i}" for i in places)
    after = merged(block(f"{products}  c = Concat<axis=-1>({joined})  y = Tanh(c)"))
    assert [len(n.outputs) for n in after.ir.graph if n.op_type == "Split"] == [4, 2]


@pytest.mark.parametrize("body", [PLAIN, BIASED, SOME_BIASED], ids=["plain", "biased", "some"])
@pytest.mark.parametrize(
    "passes",
    ["int4:min-size=0", "int8:mode=weight-only:min-size=0", "int8:mode=dynamic:min-size=0"],
)
def test_rounded_weights(
    passes: str, body: str, prepared: Run, merged: Callable[[Model], Model]
) -> None:
    before = prepared(body + END, passes)
    after = merged(before)
    products = sum(operators(before)[op] for op in ("MatMul", "MatMulInteger", "MatMulNBits"))
    left = sum(operators(after)[op] for op in ("MatMul", "MatMulInteger", "MatMulNBits"))
    assert (products, left) == (3, 1)
    codes = (v for v in after.ir.graph.initializers.values() if v.shape and 160 in tuple(v.shape))
    assert any(value.dtype is not ir.DataType.FLOAT for value in codes)


def test_static_int8_is_equal_to_the_last_bit() -> None:
    from irtools import optimize

    for body in (BIASED, SOME_BIASED):
        model = block(body + END)
        rounded = optimize(model, "int8:mode=static:min-size=0", target=TARGET, bench=None).model
        after = Model(rounded.ir.clone())
        apply_pass(ALWAYS, after.ir, PassContext.for_model(after, TARGET))
        assert (operators(rounded)["MatMul"], operators(after)["MatMul"]) == (3, 1)
        np.testing.assert_array_equal(outputs(after)["y"], outputs(rounded)["y"])


@cache
def two_blocks_of_bits() -> Model:
    rng = np.random.default_rng(0)
    nodes, weights = [], {}
    for name, columns in (("q", 96), ("k", 32)):
        weights[f"{name}c"] = rng.integers(0, 256, (columns, 2, 16), np.uint8)
        weights[f"{name}s"] = rng.random((columns * 2,), np.float32)
        weights[f"{name}z"] = rng.integers(0, 256, (columns,), np.uint8)
        form = f"K=64, N={columns}, bits=4, block_size=32"
        inputs = f"x, {name}c, {name}s, {name}z"
        nodes.append(f"{name} = com.microsoft.MatMulNBits<{form}>({inputs})")
    named = "uint8[96,2,16] qc, float[192] qs, uint8[96] qz"
    named += ", uint8[32,2,16] kc, float[64] ks, uint8[32] kz"
    text = f"""
    <ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>
    bits (float[B,S,64] x, {named}) => (float[B,S,N] y) {{ {" ".join(nodes)} {GEMM_END} }}
    """
    return read_model(text, weights)


def test_products_in_the_operator_of_a_runtime(merged: Callable[[Model], Model]) -> None:
    after = merged(two_blocks_of_bits())
    (product,) = (n for n in after.ir.graph if n.op_type == "MatMulNBits")
    assert product.attributes["N"].as_int() == 128


def test_middle_of_the_bits_is_not_zero(make_context: Callable[..., PassContext]) -> None:
    """Zero points that only some of the products have cannot be filled with zeros."""
    model = Model(two_blocks_of_bits().ir.clone())
    for node in model.ir.graph:
        if node.outputs[0].name == "k":
            node.replace_input_with(3, None)
    del model.ir.graph.initializers["kz"]
    result = apply_pass(ALWAYS, model.ir, make_context(TARGET))
    assert not result.modified and "only some have zero points" in result.notes[0]


@pytest.mark.openvino
@pytest.mark.parametrize("body", [PLAIN, BIASED, SOME_BIASED], ids=["plain", "biased", "some"])
def test_openvino_gives_the_same(body: str, merged: Callable[[Model], Model]) -> None:
    before = block(body + END)
    expected = outputs(before, target="openvino-cpu")["y"]
    found = outputs(merged(before), target="openvino-cpu")["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param("k = MatMul(x, w2)  y = Exp(k)", "", id="one product"),
        pytest.param(
            "k = MatMul(x, w2)  e = Exp(x)  v = MatMul(e, w3)  y = Add(k, v)", "", id="other inputs"
        ),
        pytest.param("k = MatMul(x, v1)  v = MatMul(x, v2)  y = Mul(k, v)", "", id="vectors"),
        pytest.param(
            "k = MatMul(x, w2)  v = MatMul(x, w2)  y = Mul(k, v)",
            "a weight that they have in common",
            id="one weight twice",
        ),
        pytest.param(
            "k = MatMul(x, w2)  v = MatMul(x, w3)  e = Exp(w3)  z = Mul(k, v)  y = Add(z, half)"
            "  u = ReduceSum<keepdims=0>(e)",
            "other nodes read a weight of theirs too",
            id="tied",
        ),
    ],
)
def test_others_stay(body: str, reason: str, make_context: Callable[..., PassContext]) -> None:
    outs = "float[B,S,N] y, float u" if " u = " in body else "float[B,S,N] y"
    model = block(body, outs)
    result = apply_pass(ALWAYS, model.ir, make_context(TARGET))
    assert not result.modified
    assert [note.partition(": ")[2] for note in result.notes] == ([reason] if reason else [])
    assert result.counters["num-skipped-products"] == (1 if reason else 0)


def test_a_number_is_not_a_bias(merged: Callable[[Model], Model]) -> None:
    """One result is shifted by a number, the other by a bias: the number is added later."""
    body = "k0 = MatMul(x, w2)  v0 = MatMul(x, w3)  k = Add(k0, half)  v = Add(v0, b3)"
    assert operators(merged(block(f"{body}  y = Mul(k, v)")))["Add"] == 2


def test_a_product_that_is_read_before_its_bias(merged: Callable[[Model], Model]) -> None:
    body = "k0 = MatMul(x, w2)  v0 = MatMul(x, w3)  k = Add(k0, b2)  v = Add(v0, b3)"
    after = merged(block(f"{body}  m = Mul(k, v)  y = Add(m, k0)"))
    assert operators(after) == {"MatMul": 1, "Split": 1, "Add": 3, "Mul": 1}


def _timed(ratio: Ratio | None, phase: Literal["prefill", "decode"] | None = None) -> LatencyResult:
    shape = "batch=1 sequence=16" if phase is None else f"{phase} batch=1"
    return LatencyResult(
        "any", shape, 1.0, 1.0, 1.0, 1.0, 0, 0.0, 1, (1.0,), speedup=ratio, phase=phase
    )


@pytest.mark.parametrize(
    ("ratios", "left"),
    [
        ({"all": Ratio(1.1, 1.05, 1.15)}, {"MatMul": 2, "Split": 2}),
        ({"all": Ratio(1.1, 0.98, 1.2)}, {"MatMul": 5}),
        ({"all": Ratio(0.8, 0.7, 0.9)}, {"MatMul": 5}),
        ({"32 + 32 columns from 64, float": Ratio(1.1, 1.05, 1.15)}, {"MatMul": 4, "Split": 1}),
    ],
    ids=["faster", "not for certain", "slower", "one kind"],
)
def test_only_what_was_timed_faster(
    ratios: Mapping[str, Ratio],
    left: Mapping[str, int],
    make_context: Callable[..., PassContext],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(merging, "_LEAST_WORK", 0)
    timed: list[Mapping[str, ir.Model]] = []

    def measure(models: Mapping[str, ir.Model], *, decoding: bool) -> Mapping[str, LatencyResult]:
        assert decoding
        timed.append(models)
        same = Ratio(1.0, 0.99, 1.01)
        return {
            name: _timed(None if name == "apart" else ratios.get(name, same)) for name in models
        }

    ctx = replace(make_context(f"ort-cpu:isa={Isa.detect().value}"), measure_latency=measure)
    model = block(
        f"{PLAIN}  c = Concat<axis=-1>(q, k, v)  n = Sigmoid(x)  g = MatMul(n, w4)"
        "  u = MatMul(n, w5)  m = Mul(g, u)  y = Concat<axis=-1>(c, m)"
    )
    unmerged = model.ir.clone()
    result = apply_pass(MergeProjections(), model.ir, ctx)
    found = {op: n for op, n in operators(model).items() if op in ("MatMul", "Split")}
    assert found == left
    (models,) = timed
    assert list(models)[:2] == ["apart", "all"] and len(models) == 4
    assert Counter(n.op_type for n in models["all"].graph)["MatMul"] == 2
    assert "at batch=1 sequence=16" in result.notes[0]
    # A trial that comes to the same model decides by the same times.
    again = apply_pass(MergeProjections(), unmerged, ctx)
    assert again.notes == result.notes and len(timed) == 1


@pytest.mark.parametrize(
    ("decode", "prefill", "merged_ones"),
    [
        (Ratio(1.16, 1.09, 1.23), Ratio(1.02, 0.97, 1.08), 1),
        (Ratio(1.16, 1.09, 1.23), Ratio(0.9, 0.88, 0.92), 0),
        (Ratio(1.01, 0.97, 1.05), Ratio(1.2, 1.1, 1.3), 0),
    ],
    ids=["faster", "prompts slower", "prompts alone faster"],
)
def test_a_decoder_is_timed_as_it_writes(
    decode: Ratio,
    prefill: Ratio,
    merged_ones: int,
    make_context: Callable[..., PassContext],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(merging, "_LEAST_WORK", 0)

    def measure(models: Mapping[str, ir.Model], *, decoding: bool) -> Mapping[str, LatencyResult]:
        ratio = decode if decoding else prefill
        return {
            name: _timed(None if name == "apart" else ratio, "decode" if decoding else "prefill")
            for name in models
        }

    ctx = replace(make_context(f"ort-cpu:isa={Isa.detect().value}"), measure_latency=measure)
    model = block(PLAIN + END)
    result = apply_pass(MergeProjections(), model.ir, ctx)
    assert operators(model)["Split"] == merged_ones
    assert "at decode batch=1: " in result.notes[0] and "at prefill batch=1: " in result.notes[0]


def test_other_machines_and_small_models_are_not_timed(
    make_context: Callable[..., PassContext],
) -> None:
    here = Isa.detect()
    other = next(isa for isa in (Isa.VNNI, Isa.AVX2) if isa is not here)
    for isa, words in ((other, "cannot be timed on this machine"), (here, "too small")):
        model = block(PLAIN + END)
        ctx = make_context(f"ort-cpu:isa={isa.value}")
        assert words in notes_of(model, MergeProjections(), ctx)[0]
        assert operators(model)["MatMul"] == 3
