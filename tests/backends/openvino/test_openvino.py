from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.errors import (
    DataError,
    FileError,
    OptionError,
    TargetUnavailableError,
    UnsupportedError,
)
from irtools.measure.probe import probe
from irtools.model import Model
from irtools.targets import Isa, RunnerOptions, find_target

pytestmark = pytest.mark.openvino

_EXACT = RunnerOptions(exact=True)
_ADD = "m (float[b, 3] x, int64[b] i) => (float[b, 3] y, int64[b] j) { y = Neg(x) j = Abs(i) }"
_FEEDS = {"x": np.ones((2, 3), np.float32), "i": np.array([-1, 2])}


def _model(body: str) -> Model:
    return Model(ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 20]>\n{body}'))


def _matmul(weight: np.ndarray) -> Model:
    w = ir.val("w", const_value=ir.tensor(weight, name="w"))
    x = ir.val("x", ir.DataType.FLOAT, ["b", weight.shape[0]])
    node = ir.node("MatMul", [x, w])
    node.outputs[0].name, node.outputs[0].dtype = "y", ir.DataType.FLOAT
    node.outputs[0].shape = ir.Shape(["b", weight.shape[1]])
    graph = ir.Graph([x], node.outputs, nodes=[node], initializers=[w], opset_imports={"": 20})
    return Model(ir.Model(graph, ir_version=10))


def test_names_and_results() -> None:
    with find_target("openvino-cpu").runner(_model(_ADD)) as runner:
        assert tuple(runner.input_names) == ("x", "i")
        assert tuple(runner.output_names) == ("y", "j")
        found = runner.run(_FEEDS)
        np.testing.assert_array_equal(found["y"], -np.ones((2, 3)))
        np.testing.assert_array_equal(found["j"], [1, 2])
        assert list(runner.run(_FEEDS, ["j"])) == ["j"]


def test_results_outlive_the_next_run() -> None:
    with find_target("openvino-cpu").runner(_model(_ADD)) as runner:
        first = runner.run(_FEEDS)
        runner.run({**_FEEDS, "x": _FEEDS["x"] * 7})
        np.testing.assert_array_equal(first["y"], -np.ones((2, 3)))


def test_a_run_that_fails_leaves_the_next_one_right() -> None:
    """Rows of all samples stand in one column [3 * b, 1], which fits [5, 3] for b = 1 only."""
    model = _model(
        "m (float[b, 3] x) => (float[c, 2] y, float[b, 1] z) "
        "<float[5, 3] w = {1,0,0,0,1,0,0,0,1,1,1,1,2,2,2}, float[5, 2] v = {1,2,3,4,5,6,7,8,9,0}, "
        "int64[2] column = {-1, 1}, float[1, 3] u = {1, 2, 3}> "
        "{ r = Reshape(x, column) p = Gemm(w, r) y = Gemm <transA = 1> (p, v) "
        "z = Gemm <transB = 1> (x, u) }"
    )
    feeds = {"x": np.array([[1, 2, 3]], np.float32)}
    with find_target("openvino-cpu").runner(model, _EXACT) as runner:
        first = runner.run(feeds)
        for rows in (2, 4):
            with suppress(DataError):  # With one thread OpenVINO raises nothing.
                runner.run({"x": np.ones((rows, 3), np.float32)})
            again = runner.run(feeds)
            assert {k: v.shape for k, v in again.items()} == {"y": (1, 2), "z": (1, 1)}
            for name, array in first.items():
                np.testing.assert_array_equal(again[name], array)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"x": _FEEDS["x"]}, r"no data for input 'i'"),
        ({**_FEEDS, "i": np.array([1.0])}, r"input 'i' takes int64, got float64"),
        ({**_FEEDS, "x": np.ones((2, 4), np.float32)}, r"takes shape \[\?x3\], got \[2x4\]"),
    ],
)
def test_feeds_that_do_not_fit(feeds: dict[str, np.ndarray], message: str) -> None:
    with (
        find_target("openvino-cpu").runner(_model(_ADD)) as runner,
        pytest.raises(DataError, match=message),
    ):
        runner.run(feeds)


def test_exact_is_float32_whatever_the_cpu_prefers() -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((64, 64), np.float32)
    x = rng.standard_normal((8, 64), np.float32)
    with find_target("openvino-cpu").runner(_matmul(weight), _EXACT) as runner:
        np.testing.assert_allclose(runner.run({"x": x})["y"], x @ weight, rtol=1e-4, atol=1e-4)
        assert runner.kernels().counts["FullyConnected[f32]"] == 1


def test_the_precision_can_be_chosen() -> None:
    target = find_target("openvino-cpu")
    weight = np.ones((64, 64), np.float32)
    with target.runner(_matmul(weight), RunnerOptions(precision="f32")) as runner:
        assert runner.kernels().counts["FullyConnected[f32]"] == 1
    with pytest.raises(OptionError, match="precision is 'f8', expected one of f32, bf16, f16"):
        target.runner(_matmul(weight), RunnerOptions(precision="f8"))


_INT8 = """
m (float[b, 3] x, float[b, 3] z) => (float[b, 4] y)
<float s = {{0.02}}, uint8 zx = {{120}},
 int8[3, 4] w = {{1, -2, 3, 4, 5, -6, 7, 8, 9, 10, -11, 127}},
 float[4] sw = {{0.01, 0.02, 0.03, 0.04}}, int8[4] zw = {{{zero}, 0, 0, 0}}>
{{
    q = QuantizeLinear(x, s, zx)
    dx = DequantizeLinear(q, s, zx)
    dw = DequantizeLinear<axis = 1>(w, sw, zw)
    y = MatMul(dx, dw)
}}
"""


def test_int8_products_are_counted() -> None:
    with find_target("openvino-cpu").runner(_model(_INT8.format(zero=0))) as runner:
        kernels = runner.kernels()
    assert (kernels.int8, kernels.float_fallbacks) == (1, ())


def test_silent_float_products_are_named() -> None:
    # Weights with a zero point are not an int8 form of this runtime; it does not say so.
    model = _model(_INT8.format(zero=3))
    (name,) = (node.name for node in model.ir.graph if node.op_type == "MatMul")
    with find_target("openvino-cpu").runner(model) as runner:
        kernels = runner.kernels()
    assert kernels.int8 == 0
    assert len(kernels.float_fallbacks) == 1
    assert not name or kernels.float_fallbacks == (name,)


def test_weights_alone_are_compressed_and_no_fallback() -> None:
    text = _INT8.format(zero=0).replace("MatMul(dx, dw)", "MatMul(x, dw)")
    with find_target("openvino-cpu").runner(_model(text)) as runner:
        assert runner.kernels().float_fallbacks == ()


def test_outputs_that_became_one_keep_their_names(tmp_path: Path) -> None:
    model = _model("m (float[2] x) => (float[2] b, float[2] a) { b = Neg(x) a = Identity(b) }")
    target = find_target("openvino-cpu")
    x = np.ones(2, np.float32)
    model.save(tmp_path / "m.onnx")
    artifact = target.compile(model, tmp_path, "m")
    for source in (model, tmp_path / "m.onnx"):
        with target.runner(source) as runner:
            assert tuple(runner.output_names) == ("b", "a")
            assert runner.run({"x": x})["a"].tolist() == [-1, -1]
    assert artifact.files == (tmp_path / "m.xml", tmp_path / "m.bin")


@pytest.mark.parametrize(
    ("body", "feeds"),
    [
        ("(float[2] x) => (float[2] y) { d = Dropout(x) y = Neg(d) }", {"x": 1}),
        (
            "(float[2] u, float[2] x, float[2] w) => (float[2] y, float[2] z) "
            "{ d, m = Dropout(x) f = Cast<to = 1>(m) y = Add(d, f) z = Neg(w) }",
            {"u": 5, "x": -2, "w": 2},
        ),
    ],
)
def test_inputs_that_the_importer_renames_keep_their_names(
    body: str, feeds: dict[str, int], tmp_path: Path
) -> None:
    model = _model(f"m {body}")
    target = find_target("openvino-cpu")
    model.save(tmp_path / "m.onnx")
    target.compile(model, tmp_path, "m")
    arrays = {name: np.full(2, number, np.float32) for name, number in feeds.items()}
    results = []
    for source in (model, tmp_path / "m.onnx", tmp_path / "m.xml"):
        with target.runner(source) as runner:
            # The file no longer says that an input which nothing reads was there.
            known = runner.input_names if source == tmp_path / "m.xml" else arrays
            found = runner.run({name: arrays[name] for name in known})
            results.append({name: array.tolist() for name, array in found.items()})
    assert results[0]["y"] == [-1, -1] and results.count(results[0]) == 3


def test_an_input_that_is_an_output_too_has_both_names() -> None:
    body = "(float[2] u, float[2] x) => (float[2] d, float[2] y) { d = Dropout(x) y = Neg(u) }"
    feeds = {name: np.full(2, number, np.float32) for name, number in (("u", 1), ("x", 2))}
    with find_target("openvino-cpu").runner(_model(f"m {body}")) as runner:
        found = runner.run(feeds)
    assert (found["d"].tolist(), found["y"].tolist()) == ([2, 2], [-1, -1])


def test_an_artifact_runs_like_the_model(tmp_path: Path) -> None:
    target = find_target("openvino-cpu")
    rng = np.random.default_rng(0)
    model = _matmul(rng.standard_normal((64, 64), np.float32))
    artifact = target.compile(model, tmp_path / "new", "net")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["net.bin", "net.xml"]
    # Float32 weights stay float32; the runtime's own default would halve them.
    assert artifact.files[1].stat().st_size >= 64 * 64 * 4
    feeds = {"x": rng.standard_normal((3, 64), np.float32)}
    with (
        target.runner(artifact.files[0], _EXACT) as compiled,
        target.runner(model, _EXACT) as plain,
    ):
        np.testing.assert_array_equal(compiled.run(feeds)["y"], plain.run(feeds)["y"])


def test_a_model_is_written_the_same_after_another_one(tmp_path: Path) -> None:
    model = _model(
        "m (float[b, 3, 4] x) => (float[b, c] y) <int64[1] axis = {1}> "
        "{ m = ReduceMean <keepdims = 0> (x, axis) s = Shape (m) e = Expand (m, s) "
        "f = Flatten (e) y = ThresholdedRelu (f) }"
    )
    target = find_target("openvino-cpu")
    first, second = (target.compile(model, tmp_path / name, "model").files for name in "ab")
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_weights_in_files_are_read(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((4, 200), np.float32)
    _matmul(weight).save(tmp_path / "m.onnx", external_data=True)
    model = Model.load(tmp_path / "m.onnx")
    with find_target("openvino-cpu").runner(model, _EXACT) as runner:
        x = np.eye(4, dtype=np.float32)
        np.testing.assert_allclose(runner.run({"x": x})["y"], weight, rtol=1e-6)


def test_a_model_that_the_importer_refuses() -> None:
    text = (
        '<ir_version: 10, opset_import: ["" : 20, "acme" : 1]>'
        "m (float[2] x) => (float[2] y) { y = acme.Wish(x) }"
    )
    message = r"^OpenVINO 2\S+ refuses the model: .*Wish"
    with pytest.raises(UnsupportedError, match=message) as found:
        find_target("openvino-cpu").runner(Model(ir.from_onnx_text(text)))
    assert "\n" not in str(found.value)


def test_an_importer_that_crashes_is_met_in_a_child(tmp_path: Path) -> None:
    # A Conv without weights ends the process in OpenVINO 2026.4.
    text = "m (float[1, 2, 3, 4] x) => (float[1, 2, 3, 4] y) { y = Conv(x) }"
    ir.save(_model(text).ir, tmp_path / "m.onnx")
    with pytest.raises(UnsupportedError, match=r"^openvino-cpu on m\.onnx crashed with SIGSEGV"):
        probe(find_target("openvino-cpu"), tmp_path / "m.onnx")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot write to folder"):
        find_target("openvino-cpu").compile(_model(_ADD), tmp_path / "file" / "out", "net")


def test_an_absent_gpu_says_what_to_install() -> None:
    target = find_target("openvino-gpu", check=False)
    try:
        target.check_available()
    except TargetUnavailableError as error:
        assert "OpenVINO sees no GPU here" in str(error)
        assert "intel-opencl-icd" in str(error)


def test_capabilities_follow_the_instruction_set() -> None:
    vnni = type(find_target("openvino-cpu"))(Isa.AMX).capabilities
    assert not vnni.int8_dynamic
    assert "bfloat16" in vnni.compute_dtypes
    avx2 = type(find_target("openvino-cpu"))(Isa.AVX2).capabilities
    assert avx2.saturates_u8s8
    assert "bfloat16" not in avx2.compute_dtypes


def test_lowering_changes_nothing_but_the_file_version() -> None:
    model = _model(_ADD)
    assert find_target("openvino-cpu").lower(model.ir) == {}


def test_no_socket_and_no_reporting_thread(tmp_path: Path) -> None:
    """`import openvino` reports itself to a web service unless it is stopped."""
    _model(_ADD).save(tmp_path / "m.onnx")
    script = (
        "import os, sys, threading\n"
        "events = []\n"
        "forbidden = ('socket.', 'os.fork', 'urllib.', 'subprocess.')\n"
        "sys.addaudithook(lambda name, _: events.append(name) if name.startswith(forbidden)"
        " else None)\n"
        "from pathlib import Path\n"
        "from irtools.model import Model\n"
        "from irtools.targets import find_target\n"
        "target = find_target('openvino-cpu')\n"
        f"target.compile(Model.load({str(tmp_path / 'm.onnx')!r}), Path({str(tmp_path)!r}), 'n')\n"
        "threads = [t.name for t in threading.enumerate() if t is not threading.main_thread()]\n"
        "print(events, threads, 'openvino_telemetry' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split("\n")[0] == "[] [] False", done.stdout + done.stderr


def test_default_precision_is_what_the_plugin_says() -> None:
    import openvino

    hint = openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT")
    known = {
        openvino.Type.f32: "float32",
        openvino.Type.bf16: "bfloat16",
        openvino.Type.f16: "float16",
    }
    assert find_target("openvino-cpu").default_precision() == known[hint]


_SCALER = (
    '<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 1]> m (float[b, 3] x) => (float[b] y) '
    "<float[3,1] w = {1.0, 2.0, 3.0}> "
    "{ s = ai.onnx.ml.Scaler <offset = [0.5, 1.0, 2.0], scale = [1.0, 2.0, 4.0]> (x) "
    "p = MatMul (s, w) y = Squeeze (p) }"
)


@pytest.mark.parametrize("from_file", [True, False])
def test_forms_that_it_refuses_are_read_as_others(from_file: bool, tmp_path: Path) -> None:
    """As scikit-learn's converter and madmom write them."""
    model = Model(ir.from_onnx_text(_SCALER))
    source = model.save(tmp_path / "m.onnx").files[0] if from_file else model
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    with find_target("openvino-cpu").runner(source, _EXACT) as runner:
        found = runner.run({"x": x})["y"]
    scaled = (x - np.float32([0.5, 1, 2])) * np.float32([1, 2, 4])
    np.testing.assert_allclose(found, scaled @ np.float32([1, 2, 3]), rtol=1e-6)


def test_a_squeeze_whose_rank_is_not_declared_stays_as_it_is() -> None:
    from irtools.backends.openvino.readable import readable

    text = _SCALER.replace("float[b] y", "float[?] y").replace("Scaler <", "Missing <")
    model = ir.from_onnx_text(text)
    model.graph.outputs[0].shape = None
    kept = Model(model)
    assert readable(kept) is kept
