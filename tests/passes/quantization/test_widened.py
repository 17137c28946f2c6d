"""Models of float16 on targets that compute in float32 alone: int8 kernels, the same interface."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.analysis.types import element_type
from irtools.data import Dataset
from irtools.model import iter_graphs, print_model, verify
from irtools.passes.quantization.write.widened import can_widen, widen
from irtools.passmanager import Pipeline
from tests.passes.quantization.conftest import build, context, relative_error, session

_HEAD = '<ir_version: 10, opset_import: ["" : 20]>'
_PRODUCTS = (
    f"{_HEAD} g (float16[b,32] x, float16[32,64] w1, float16[64] wb, float16[64,8] w2) "
    "=> (float16[b,8] y) { h = MatMul(x, w1) a = Add(h, wb) r = Relu(a) y = MatMul(r, w2) }"
)


def halves(rows: int, columns: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float16)


def test_casts_stand_at_the_ends_and_nowhere_else() -> None:
    model = build(
        f"{_HEAD} g (float16[2,2] x, float[2,2] z, float16[2,2] w) => "
        "(float16[2,2] y, float[2,2] v) { h = MatMul(x, w) n = Cast<to = 10>(z) s = Add(h, n) "
        "y = Relu(s) v = Cast<to = 1>(h) }",
        w=np.array([[1, 2], [3, 4]]),
    )
    assert can_widen(model)
    assert widen(model, "int8") == 1
    assert print_model(model) == (
        "ir 10, opset 20\n"
        "graph (x: float16[2, 2], z: float32[2, 2]) -> (y: float16[2, 2], v: float32[2, 2])\n"
        "  w: float32[2, 2] = [1.0, 2.0, 3.0, 4.0]\n"
        '  x_wide = Cast<to=1>(x)  "x_wide/Cast"\n'
        "  h = MatMul(x_wide, w)\n"
        "  s = Add(h, z)\n"
        "  y_float = Relu(s)\n"
        "  v = Cast<to=1>(h)\n"
        '  y = Cast<to=10>(y_float)  "y_half/Cast"\n'
    )


def test_bodies_and_types_that_attributes_name() -> None:
    model = build(
        f"{_HEAD} g (float16[2] x, bool c, float16[2] w) => (float16[2] y) {{"
        " s = Shape(x) k = ConstantOfShape<value = float16[1] {3}>(s) a = Add(x, k) m = Mul(a, w)"
        " y = If(c) <then_branch = t () => (float16[2] p) { p = Neg(m) },"
        " else_branch = e () => (float16[2] q) "
        "{ k2 = Constant<value = float16[2] {1, 2}>() q = Add(m, k2) }> }"
    )
    before = model.clone()
    widen(model, "int8")
    verify(model)
    halves = [
        value.name
        for graph in iter_graphs(model)
        for node in graph
        for value in node.outputs
        if element_type(value) == ir.DataType.FLOAT16
    ]
    assert halves == ["y"]
    x = np.array([0.5, -2], np.float16)
    for condition in (False, True):
        feeds = {"x": x, "c": np.array(condition)}
        wanted, found = (session(m, exact=True).run(None, feeds)[0] for m in (before, model))
        assert wanted.dtype == found.dtype == np.float16
        np.testing.assert_allclose(found, wanted, rtol=2e-3)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("(float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }", id="no float16"),
        pytest.param(
            "(float[2,2] x, float16[2,2] w) => (float[2,2] y) "
            "{ f = Cast<to = 1>(w) y = MatMul(x, f) }",
            id="stored in 16 bits alone",
        ),
        pytest.param(
            "(float16[2] x, float16[2] w) => (float16[2] y, float16[2] x) { y = Add(x, w) }",
            id="an input that is an output",
        ),
    ],
)
def test_what_is_not_widened(text: str) -> None:
    assert not can_widen(build(f"{_HEAD} g {text}"))


def test_operators_that_are_not_known_are_not_widened() -> None:
    head = '<ir_version: 10, opset_import: ["" : 20, "own" : 1]>'
    model = build(f"{head} g (float16[2] x, float16[2] w) => (float16[2] y) {{ y = own.Op(x, w) }}")
    assert not can_widen(model)


@pytest.mark.parametrize("target", ["ort-cpu:isa=vnni", "openvino-cpu:isa=vnni"])
def test_weights_of_float16_get_int8_kernels(quantize, outputs, kernels, target: str) -> None:
    model = build(_PRODUCTS)
    x = halves(64, 32)
    done = quantize(model, "int8:min-size=0:mode=static", target, x=x)
    assert done.result.counters["num-quantized-matmul"] == 2
    assert done.result.counters["num-widened"] == 3
    assert any(note.startswith("float16 becomes float32") for note in done.result.notes)
    assert done.after.graph.inputs[0].dtype == ir.DataType.FLOAT16
    assert done.after.graph.outputs[0].dtype == ir.DataType.FLOAT16
    wanted = outputs(model, x=x)
    assert relative_error(outputs(done.after, x=x), wanted) < 0.02
    found = kernels(done.after)
    assert found["MatMulIntegerToFloat"] + found["QGemm"] == 2 and not found["MatMul"], found


def test_a_plan_is_carried_out_on_the_file_as_it_is(quantize, outputs) -> None:
    model, x = build(_PRODUCTS), halves(64, 32)
    (pass_,) = Pipeline("int8:min-size=0:mode=static")
    ctx = context("ort-cpu:isa=vnni", Dataset({"x": x}))
    plan = pass_.plan(model, ctx)
    assert model.graph.initializers["w1"].dtype == ir.DataType.FLOAT16
    for decision in plan.decisions:
        one = model.clone()
        result = pass_.apply(one, type(plan)(plan.pass_text, (decision,)), ctx)
        assert result.counters["num-quantized-matmul"] == 1
        assert relative_error(outputs(one, x=x), outputs(model, x=x)) < 0.02


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("int8:min-size=0:mode=weight-only", "ort-cpu:isa=vnni"),
        ("int8:min-size=0:mode=dynamic", "ort-cuda"),
        ("int8:min-size=100000:mode=static", "ort-cpu:isa=vnni"),
    ],
)
def test_without_a_kernel_for_it_float16_stays(quantize, text: str, target: str) -> None:
    done = quantize(build(_PRODUCTS), text, target, x=halves(16, 32))
    assert "num-widened" not in done.result.counters
    assert not any("float16 becomes" in note for note in done.result.notes)
    assert done.after.graph.initializers["wb"].dtype == ir.DataType.FLOAT16
