"""`int4` on weights that lie on a grid: what is written, what runtimes make of it, what is said."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.editing import Editor
from irtools.model import Model, note_grids
from irtools.model.printer import print_model
from irtools.passmanager import Pipeline
from irtools.targets import find_target, lowered

from .conftest import Quantized, build, context, relative_error
from .test_int4 import TABLE, TIED

F = np.float32
INT4 = "int4:min-size=0"
PRODUCT = """
<ir_version: 10, opset_import: ["" : 21]>
g (float[batch,seq,32] x, float[32,3] w) => (float[batch,seq,3] y) { y = MatMul(x, w) }
"""
FFN = """
<ir_version: 10, opset_import: ["" : 20]>
ffn (float[batch,seq,64] x, float[64,96] w1, float[96] w_b1, float[96,64] w2, float[96,64] w3)
=> (float[batch,seq,64] y) {
  h = MatMul(x, w1)
  a = Add(h, w_b1)
  g = Gelu(a)
  o = MatMul(g, w2)
  p = MatMul(g, w3)
  y = Add(o, p)
}
"""
TURNED = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n,64] x, float[96,64] w1, float[96] w_b, float[64,96] w2) => (float[n,64] y) {
  h = Gemm<transB=1>(x, w1, w_b)
  t = Transpose(w2)
  y = MatMul(h, t)
}
"""


def on_grid(kind: str, rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Rows of output channels on a grid of blocks of 32, with codes and steps in float16."""
    rng = np.random.default_rng(seed)
    shape = (rows, columns // 32)
    step = (rng.uniform(0.5, 3, shape) * 0.01).astype(np.float16).astype(F)[..., None]
    most = {"symmetric": 8, "minimum": 16, "zero": 16, "eight": 128}[kind]
    codes = rng.integers(0, most, (*shape, 32)) if kind in ("minimum", "zero") else None
    match kind:
        case "minimum":
            least = (-7.3 * step).astype(np.float16).astype(F)
            # The range is the whole one, as quantizers make it.
            codes[..., 0], codes[..., 1] = 0, 15
            found = codes * step + least
        case "zero":
            codes[..., 0], codes[..., 1] = 0, 15
            found = (codes - rng.integers(0, 16, (*shape, 1))) * step
        case _:
            codes = rng.integers(-most, most, (*shape, 32))
            codes[..., 0] = -most if kind == "symmetric" else most - 1
            found = codes * step
    return found.reshape(rows, columns).astype(F)


def ffn_on(kind: str, quantize) -> tuple[ir.Model, Quantized]:
    weights = {
        "w1": on_grid(kind, 96, 64).T,
        "w2": on_grid(kind, 64, 96, 1).T,
        "w3": on_grid(kind, 64, 96, 2).T,
    }
    model = build(FFN, **weights)
    return model, quantize(model, INT4)


def on_onnx_runtime(model: ir.Model) -> ir.Model:
    return lowered(Model(model), find_target("ort-cpu:isa=vnni")).ir


def body(model: ir.Model) -> list[str]:
    lines = print_model(model).splitlines()
    return [line.split('  "')[0].strip() for line in lines if " = " in line]


def test_golden_minima(quantize) -> None:
    w = on_grid("minimum", 3, 32).T
    done = quantize(build(PRODUCT, w=w), INT4)
    lines = body(done.after)
    assert [line.partition(" = ")[0].partition(":")[0] for line in lines[:6]] == [
        "w_scale_stored",
        "w_quantized",
        "w_minimum_stored",
        "w_middle",
        "x_block_shape",
        "x_last_axis",
    ]
    assert "int4[32, 3]" in lines[1] and "float16[1, 3]" in lines[0] and "float16" in lines[2]
    assert lines[3] == "w_middle: float32[] = 8.0"
    assert lines[6:] == [
        "x_blocks = Reshape(x, x_block_shape)",
        "x_block_sums = ReduceSum<keepdims=0>(x_blocks, x_last_axis)",
        "w_scale = Cast<to=1>(w_scale_stored)",
        "w_dequantized = DequantizeLinear<axis=0, block_size=32>(w_quantized, w_scale)",
        "w_minimum = Cast<to=1>(w_minimum_stored)",
        "w_moved = Mul(w_scale, w_middle)",
        "w_offset = Add(w_minimum, w_moved)",
        "y_minima = MatMul(x_block_sums, w_offset)",
        "y_codes = MatMul(x, w_dequantized)",
        "y = Add(y_codes, y_minima)",
    ]


def test_golden_whole_steps(quantize) -> None:
    done = quantize(build(PRODUCT, w=on_grid("symmetric", 3, 32).T), INT4)
    assert body(done.after)[2:] == [
        "w_scale = Cast<to=1>(w_scale_stored)",
        "w_dequantized = DequantizeLinear<axis=0, block_size=32>(w_quantized, w_scale)",
        "y = MatMul(x, w_dequantized)",
    ]


def test_the_twin_off_its_grid_is_rounded(quantize) -> None:
    w = on_grid("minimum", 3, 32).T.copy()
    w[5, 1] += F(1e-4)
    done = quantize(build(PRODUCT, w=w), INT4)
    assert body(done.after)[3:] == [
        "w_dequantized = DequantizeLinear<axis=0, block_size=32>(w_quantized, w_scale, "
        "w_zero_point)",
        "y = MatMul(x, w_dequantized)",
    ]
    assert "num-kept-grid" not in done.result.counters


@pytest.mark.parametrize("kind", ["symmetric", "minimum", "zero", "eight"])
def test_nothing_is_lost(quantize, outputs, kind: str) -> None:
    """Computed without the runtime's own kernels, which round activations."""
    model, done = ffn_on(kind, quantize)
    assert done.result.counters["num-kept-grid"] == 3
    assert done.result.counters["num-quantized-matmul"] == 3
    assert all(decision.cost == 0 for decision in done.result.plan.decisions)
    x = np.random.default_rng(3).standard_normal((2, 5, 64)).astype(F)
    assert relative_error(outputs(done.after, x=x), outputs(model, x=x)) < 2e-6
    # The sums of an input are made once for all that read it.
    sums = [line for line in body(done.after) if "_block_sums = " in line]
    assert len(sums) == (2 if kind == "minimum" else 0)


@pytest.mark.parametrize("kind", ["symmetric", "minimum", "zero", "eight"])
def test_both_ways_round(quantize, outputs, kind: str) -> None:
    model = build(TURNED, w1=on_grid(kind, 96, 64), w2=on_grid(kind, 64, 96, 1))
    done = quantize(model, INT4)
    x = np.random.default_rng(3).standard_normal((5, 64)).astype(F)
    assert done.result.counters["num-kept-grid"] == 2
    assert relative_error(outputs(done.after, x=x), outputs(model, x=x)) < 2e-6
    assert "Gemm" not in done.operators  # Runtimes compress MatMul alone.


@pytest.mark.parametrize("kind", ["symmetric", "minimum", "zero", "eight"])
def test_onnx_runtime_compresses_it(quantize, outputs, kernels, kind: str) -> None:
    model, done = ffn_on(kind, quantize)
    x = np.random.default_rng(3).standard_normal((1, 7, 64)).astype(F)
    low = on_onnx_runtime(done.after)
    assert kernels(low)["MatMulNBits"] == 3 and not kernels(low)["DequantizeLinear"]
    # Activations in 8 bits, by the runtime; weights of 4 bits would lose ten times that.
    assert relative_error(outputs(low, exact=False, x=x), outputs(model, x=x)) < 0.02
    # Without the runtime's optimizations nothing is lost, and nothing is wrong.
    assert relative_error(outputs(low, x=x), outputs(model, x=x)) < 2e-6


@pytest.mark.openvino
@pytest.mark.parametrize("kind", ["symmetric", "minimum", "zero", "eight"])
def test_openvino_compresses_it(quantize, outputs, openvino_layers, kind: str) -> None:
    model, done = ffn_on(kind, quantize)
    x = np.random.default_rng(3).standard_normal((1, 7, 64)).astype(F)
    low = lowered(Model(done.after), find_target("openvino-cpu:isa=vnni", check=False)).ir
    found, layers = openvino_layers(low, x=x)
    assert relative_error(found, outputs(model, x=x)) < 1e-5
    types = {"symmetric": "i4", "minimum": "i4", "zero": "u4", "eight": "i8"}
    assert layers[f"Const[{types[kind]}]"] >= 3


@pytest.mark.parametrize("text", [TIED, TABLE])
@pytest.mark.parametrize("kind", ["symmetric", "eight"])
def test_tables_are_exact(quantize, outputs, text: str, kind: str) -> None:
    model = build(text, w=on_grid(kind, 300, 64))
    done = quantize(model, INT4)
    assert done.result.counters["num-kept-grid"] == 1
    ids = np.arange(300).reshape(3, 100)
    if text == TABLE:
        np.testing.assert_array_equal(outputs(done.after, ids=ids), outputs(model, ids=ids))
    else:
        assert relative_error(outputs(done.after, ids=ids), outputs(model, ids=ids)) < 2e-6
    low = on_onnx_runtime(done.after)
    # Zero points in the middle are what the operators take for granted.
    assert not any("zero_point" in name for name in low.graph.initializers) or text == TABLE


def test_tables_with_minima_are_rounded(quantize) -> None:
    done = quantize(build(TIED, w=on_grid("minimum", 300, 64)), INT4)
    assert "num-kept-grid" not in done.result.counters
    assert done.result.counters["num-quantized-embedding"] == 1


@pytest.mark.parametrize(
    ("option", "kept"),
    [("", 3), (":grids=4", 2), (":grids=none", 0), (":format=nf4", 0)],
)
def test_options(quantize, option: str, kept: int) -> None:
    weights = {
        "w1": on_grid("minimum", 96, 64).T,
        "w2": on_grid("eight", 64, 96).T,
        "w3": on_grid("zero", 64, 96).T,
    }
    done = quantize(build(FFN, **weights), INT4 + option)
    assert done.result.counters.get("num-kept-grid", 0) == kept
    assert done.result.counters["num-quantized-matmul"] == 3
    told = "grids=4 rounds the weights on finer grids to 4 bits" in done.result.notes
    assert told is (kept == 3)


def test_the_report_names_how_many_kept_theirs(quantize) -> None:
    weights = {"w1": on_grid("minimum", 96, 64).T, "w2": on_grid("zero", 64, 96).T}
    done = quantize(build(FFN, **weights), INT4)
    assert (
        "2 weights lie on a grid of 4 bits in blocks of 32, and nothing is rounded there"
        in done.result.notes
    )


def test_an_input_of_unknown_rank_is_multiplied_into_sums(quantize, outputs) -> None:
    model = build(PRODUCT, w=on_grid("minimum", 3, 32).T)
    model.graph.inputs[0].shape = None
    done = quantize(model, INT4)
    assert "x_block_sums = MatMul(x, members_of_blocks_32_32)" in body(done.after)
    x = np.random.default_rng(3).standard_normal((1, 7, 32)).astype(F)
    assert relative_error(outputs(done.after, x=x), outputs(model, x=x)) < 2e-6


def scaled(model: ir.Model, rule: str) -> ir.Model:
    """Scale w1 as a pass would."""
    editor = Editor(model, rule)
    old = model.graph.initializers["w1"]
    new = editor.constant("w1_scaled", old.const_value.numpy() * F(1.1))
    old.replace_all_uses_with(new)
    del model.graph.initializers["w1"]
    return model


def test_a_pass_that_broke_a_grid_is_named(quantize) -> None:
    weights = {"w1": on_grid("minimum", 96, 64).T, "w2": on_grid("zero", 64, 96).T}
    model = build(FFN, **weights)
    note_grids(model, {"w1": "Q4_1", "w2": "gptq", "gone": "Q4_1"})
    sound = quantize(model, INT4)
    assert not any("no longer" in note for note in sound.result.notes)
    done = quantize(scaled(model, "smooth"), INT4)
    assert (
        "1 weight came on a grid (Q4_1) and no longer lies on one, 'w1_scaled' first, because "
        "`smooth` changed it; rounded again: run int4 before smooth, or leave smooth out"
    ) in done.result.notes


def test_a_plan_survives_a_second_reading() -> None:
    weights = {"w1": on_grid("minimum", 96, 64).T, "w2": on_grid("eight", 64, 96).T}
    model = build(FFN, **weights)
    (pass_,) = Pipeline(INT4)
    first, ctx = pass_.plan(model, context("ort-cpu", None)), context("ort-cpu", None)
    again = type(first).from_json(first.to_json())
    one, other = model.clone(), model.clone()
    pass_.apply(one, first, ctx)
    pass_.apply(other, again, ctx)
    assert print_model(one) == print_model(other)
