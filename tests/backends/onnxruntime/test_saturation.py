"""Models that come quantized, on CPUs whose 8-bit products saturate."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.analysis.int8_products import saturating_products
from irtools.backends import exact_products as exact_products_module
from irtools.backends.onnxruntime.runner import OrtRunner
from irtools.backends.onnxruntime.session import Provider
from irtools.backends.onnxruntime.source import ModelSource
from irtools.backends.onnxruntime.target import OrtCpu
from irtools.backends.unsigned_weights import make_weights_unsigned
from irtools.model import Model
from irtools.targets import Isa, RunnerOptions, Target
from irtools.targets import isa as detection

_HEAD = '<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]>'
_QDQ = """g (float[n,16] x) => (float[n,8] y) <float s = {0.03}, uint8 z = {128}> {
  a = QuantizeLinear(x, s, z)  b = DequantizeLinear(a, s, z)
  w = DequantizeLinear(q, s)  y = MatMul(b, w) }"""
_INTEGERS = """g (float[n,16] x) => (int32[n,8] y) {
  a, s, z = DynamicQuantizeLinear(x)  y = MatMulInteger(a, q, z) }"""
_QLINEAR = """g (float[n,16] x) => (float[n,8] y)
<float s = {0.03}, uint8 z = {120}, int8 k = {0}, float t = {2.0}> {
  a = QuantizeLinear(x, s, z)  c = QLinearMatMul(a, s, z, q, s, k, t, z)
  y = DequantizeLinear(c, t, z) }"""
_CONV = """g (float[n,16] x) => (float[n,2,2,2] y)
<float s = {0.03}, uint8 z = {120}, int8 k = {3}, float t = {2.0}, int64[4] i = {-1, 1, 4, 4}> {
  r = Reshape(x, i)  a = QuantizeLinear(r, s, z)  c = QLinearConv(a, s, z, q, s, k, t, z)
  y = DequantizeLinear(c, t, z) }"""
_SIGNED = _QLINEAR.replace("uint8 z = {120}", "int8 z = {-8}")


def _model(text: str, weight: np.ndarray | None = None) -> Model:
    rng = np.random.default_rng(0)
    shape = (2, 1, 3, 3) if "Conv" in text else (16, 8)
    array = rng.integers(-127, 128, shape).astype(np.int8) if weight is None else weight
    model = ir.from_onnx_text(f"{_HEAD} {text}")
    value = ir.Value(name="q", const_value=ir.Tensor(array, name="q"))
    value.dtype, value.shape = ir.DataType.INT8, ir.Shape(array.shape)
    model.graph.register_initializer(value)
    for node in model.graph:
        for index, old in enumerate(node.inputs):
            if old is not None and old.name == "q":
                node.replace_input_with(index, value)
    return Model(model)


def _x(rows: int = 6) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(rows, 16)).astype(np.float32)


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[Isa], None]:
    """Let this machine be another one."""

    def replace(isa: Isa) -> None:
        monkeypatch.setattr(detection, "_detect", lambda: isa)

    return replace


@pytest.mark.parametrize("target", list(Isa))
@pytest.mark.parametrize("here", [Isa.AVX2, Isa.AMX, Isa.ARM_DOT])
def test_where_models_run_with_unsigned_weights(
    on: Callable[[Isa], None], here: Isa, target: Isa
) -> None:
    """Where the target's CPU saturates, and where this one does: its figures must be exact."""
    on(here)
    saturates = {Isa.SSE, Isa.AVX2, Isa.AVX512}
    for text in (_QDQ, _INTEGERS, _QLINEAR):
        model = _model(text)
        run = OrtCpu(target).as_run(model)
        assert (run is not model) == bool({target, here} & saturates)
        assert isinstance(run, Model) and (run is model or not saturating_products(run.ir))


def test_safe_weights_keep_the_fast_kernels(on: Callable[[Isa], None]) -> None:
    on(Isa.AVX2)
    pairs = np.tile(np.array([[127], [1]], np.int8), (8, 8))
    models = [_model(_QDQ, weight) for weight in (pairs, np.full((16, 8), 64, np.int8))]
    models.append(_model("g (float[n,16] x, int8[16,8] q0) => (float[n,16] y) { y = Neg(x) }"))
    assert all(OrtCpu(Isa.AVX2).as_run(model) is model for model in models)


def test_a_file_is_looked_at_as_well(on: Callable[[Isa], None], tmp_path: Path) -> None:
    on(Isa.AVX2)
    _model(_QDQ).save(tmp_path / "m.onnx")
    run = OrtCpu(Isa.AVX2).as_run(tmp_path / "m.onnx")
    assert isinstance(run, Model) and not saturating_products(run.ir)
    times = OrtCpu(Isa.AVX2).profile(tmp_path / "m.onnx", {"x": _x()}, 2, RunnerOptions(threads=1))
    assert times.totals.size == 2
    own = tmp_path / "m.ort"
    assert OrtCpu(Isa.AVX2).as_run(own) is own


@pytest.mark.parametrize("attribute", ["", "<output_dtype = 3>"])
def test_integers_that_a_node_makes_of_floats_are_declared_unsigned(
    attribute: str, on: Callable[[Isa], None]
) -> None:
    """As tools write that train through roundings; ONNX Runtime holds declared types against it."""
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    g (float[n,16] x, float[16,8] q) => (float[n,8] y)
    <float s = {{0.03}}, uint8 z = {{128}}, float t = {{1.0}}, int8 k = {{0}}, int8[16,8] i> {{
      a = QuantizeLinear(x, s, z)  b = DequantizeLinear(a, s, z)
      i = QuantizeLinear {attribute} (q, t, k)  w = DequantizeLinear(i, t, k)
      y = MatMul(b, w) }}"""
    weight = np.random.default_rng(0).integers(-127, 128, (16, 8)).astype(np.float32)
    model = ir.from_onnx_text(text)
    value = next(node for node in model.graph if node.op_type == "MatMul").inputs[1]
    assert value is not None
    table = model.graph.inputs.pop()
    table.const_value = ir.Tensor(weight, name="q")
    model.graph.register_initializer(table)
    made = next(node for node in model.graph if node.outputs[0].name == "i").outputs[0]
    made.dtype, made.shape = ir.DataType.INT8, ir.Shape([16, 8])

    exact = RunnerOptions(exact=True, threads=1)
    with OrtCpu(Isa.VNNI).runner(Model(model), exact) as runner:
        wanted = runner.run({"x": _x()})["y"]
    on(Isa.AVX2)
    with OrtCpu(Isa.AVX2).runner(Model(model), exact) as runner:
        np.testing.assert_array_equal(runner.run({"x": _x()})["y"], wanted)
    assert made.dtype == ir.DataType.INT8


def test_a_file_with_nothing_to_rewrite_is_looked_at_once(
    on: Callable[[Isa], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that is timed is one of the runtime."""
    on(Isa.AVX2)
    looks = []
    original = exact_products_module._load
    monkeypatch.setattr(
        exact_products_module, "_load", lambda path: looks.append(path) or original(path)
    )
    path = tmp_path / "m.onnx"
    _model(_QDQ, np.full((16, 8), 64, np.int8)).save(path)
    target = OrtCpu(Isa.AVX2)
    assert target.as_run(path) is path
    with target.runner(path) as runner:
        runner.run({"x": _x()})
    assert looks == [path]

    _model(_QDQ).save(path)  # What stands there now saturates.
    os.utime(path, ns=(1, 1))
    assert isinstance(target.as_run(path), Model)
    assert looks == [path, path]


@pytest.mark.parametrize("text", [_QDQ, _INTEGERS, _QLINEAR, _CONV])
def test_a_reference_is_computed_with_unsigned_weights(
    on: Callable[[Isa], None], text: str
) -> None:
    """The integers are the same."""
    model, exact = _model(text), RunnerOptions(exact=True, threads=1)
    before = model.text()
    with OrtCpu(Isa.VNNI).runner(model, exact) as runner:
        wanted = runner.run({"x": _x()})["y"]
    copy = model.clone()
    assert make_weights_unsigned(copy.ir) == 1
    assert saturating_products(copy.ir) == ()
    for target in (OrtCpu(Isa.AVX2), OrtCpu(Isa.VNNI)):
        with target.runner(copy, exact) as runner:
            np.testing.assert_array_equal(runner.run({"x": _x()})["y"], wanted)
    on(Isa.AVX2)
    with OrtCpu(Isa.AVX2).runner(model, exact) as runner:
        np.testing.assert_array_equal(runner.run({"x": _x()})["y"], wanted)
    assert model.text() == before


@pytest.mark.parametrize("exact", [False, True])
def test_products_that_share_a_weight_and_its_zero_point(
    on: Callable[[Isa], None], exact: bool
) -> None:
    """The runtime makes them unsigned reader by reader, under one name, and then refuses both."""
    text = """g (float[n,16] x) => (float[n,8] y) <float s = {0.03}, uint8 z = {128}, int8 k = {0}>
    {
      a = QuantizeLinear(x, s, z)  b = DequantizeLinear(a, s, z)
      v = DequantizeLinear(q, s, k)  w = DequantizeLinear(q, s, k)
      c = MatMul(b, v)  d = MatMul(b, w)  y = Add(c, d) }"""
    options = RunnerOptions(exact=exact, threads=1)
    with OrtCpu(Isa.VNNI).runner(_model(text), options) as runner:
        wanted = runner.run({"x": _x()})["y"]
    on(Isa.AVX2)
    with OrtCpu(Isa.AVX2).runner(_model(text), options) as runner:
        np.testing.assert_allclose(runner.run({"x": _x()})["y"], wanted, rtol=1e-5, atol=1e-5)


def test_signed_activations_are_summed_exactly_and_stay() -> None:
    assert saturating_products(_model(_SIGNED).ir) == ()


@pytest.mark.parametrize("format", ["onnx", "ort"])
def test_the_artifact_needs_no_option(tmp_path: Path, format: str) -> None:
    artifact = OrtCpu(Isa.AVX2).compile(_model(_QDQ), tmp_path, "net", format=format)
    if format == "onnx":
        assert saturating_products(Model.load(artifact.files[0]).ir) == ()
    with OrtCpu(Isa.VNNI).runner(_model(_QDQ), RunnerOptions(exact=True)) as runner:
        wanted = runner.run({"x": _x()})["y"]
    # Loaded as it is, without anything that would make a file exact.
    provider = [Provider("CPUExecutionProvider")]
    with OrtRunner(ModelSource.of(artifact.files[0]), RunnerOptions(), provider) as runner:
        np.testing.assert_allclose(runner.run({"x": _x()})["y"], wanted, rtol=1e-5, atol=1e-5)


def test_a_machine_that_sums_exactly_keeps_signed_weights(tmp_path: Path) -> None:
    artifact = OrtCpu(Isa.VNNI).compile(_model(_QDQ), tmp_path, "net")
    assert len(saturating_products(Model.load(artifact.files[0]).ir)) == 1


def test_the_words_for_users_name_the_option() -> None:
    assert "session.x64quantprecision=1" in OrtCpu.widening
    assert Target.widening == ""
