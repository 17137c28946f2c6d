from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.backends.onnxruntime.source import ModelSource
from irtools.backends.onnxruntime.target import OrtCpu
from irtools.errors import DataError, OptionError, UnsupportedError
from irtools.model import Model
from irtools.targets import Isa, RunnerOptions

_CPU = OrtCpu(Isa.VNNI)


def _model(body: str, opset: int = 20) -> Model:
    return Model(ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : {opset}]>\n{body}'))


_ADD = "m (float[b, 3] x, int64[b] i) => (float[b, 3] y, int64[b] j) { y = Neg(x) j = Abs(i) }"
_FEEDS = {"x": np.ones((2, 3), np.float32), "i": np.array([-1, 2])}


def test_names_and_results() -> None:
    with _CPU.runner(_model(_ADD)) as runner:
        assert tuple(runner.input_names) == ("x", "i")
        assert tuple(runner.output_names) == ("y", "j")
        found = runner.run(_FEEDS)
        np.testing.assert_array_equal(found["y"], -np.ones((2, 3)))
        np.testing.assert_array_equal(found["j"], [1, 2])
        assert list(runner.run(_FEEDS, ["j"])) == ["j"]


def test_a_file_runs_like_the_model(tmp_path: Path) -> None:
    _model(_ADD).save(tmp_path / "m.onnx")
    with _CPU.runner(tmp_path / "m.onnx") as runner:
        np.testing.assert_array_equal(runner.run(_FEEDS)["j"], [1, 2])


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"x": _FEEDS["x"]}, r"no data for input 'i'; got 'x'"),
        ({**_FEEDS, "z": _FEEDS["i"]}, r"no input 'z'; its inputs are 'x', 'i'"),
        ({**_FEEDS, "i": np.array([1.0])}, r"input 'i' takes int64, got float64"),
        ({**_FEEDS, "x": np.ones((2, 4), np.float32)}, r"input 'x' takes shape \[\?x3\], got"),
        ({**_FEEDS, "x": np.ones(3, np.float32)}, r"takes shape \[\?x3\], got \[3\]"),
    ],
)
def test_feeds_that_do_not_fit(feeds: dict[str, np.ndarray], message: str) -> None:
    with _CPU.runner(_model(_ADD)) as runner, pytest.raises(DataError, match=message):
        runner.run(feeds)


def test_unknown_outputs_are_named() -> None:
    with _CPU.runner(_model(_ADD)) as runner, pytest.raises(DataError, match="no output 'z'"):
        runner.run(_FEEDS, ["z"])


def test_data_that_breaks_an_operator() -> None:
    model = _model("m (int64[n] i) => (float[n] y) <float[2] t = {1.0, 2.0}> { y = Gather(t, i) }")
    with _CPU.runner(model) as runner, pytest.raises(DataError, match="Gather") as found:
        runner.run({"i": np.array([7])})
    assert "\n" not in str(found.value)


def test_a_model_that_the_runtime_refuses() -> None:
    model = _model("m (bfloat16[2, 2] x) => (bfloat16[2, 2] y) { y = MatMul(x, x) }")
    with pytest.raises(UnsupportedError, match=r"ONNX Runtime .* refuses the model: .*MatMul"):
        _CPU.runner(model)


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_text("<html>")
    with pytest.raises(UnsupportedError, match="refuses the model"):
        _CPU.runner(tmp_path / "bad.onnx")


def test_a_weight_that_callers_may_override() -> None:
    model = _model("m (float[2] x, float[2] w) => (float[2] y) { y = Mul(x, w) }")
    w = model.ir.graph.inputs[1]
    w.const_value = ir.tensor(np.array([2, 3], np.float32), name="w")
    model.ir.graph.initializers["w"] = w
    x = np.ones(2, np.float32)
    with _CPU.runner(model) as runner:
        assert tuple(runner.input_names) == ("x",)
        np.testing.assert_array_equal(runner.run({"x": x})["y"], [2, 3])
        np.testing.assert_array_equal(runner.run({"x": x, "w": x * 5})["y"], [5, 5])


def test_a_closed_runner_says_so() -> None:
    runner = _CPU.runner(_model(_ADD))
    runner.close()
    with pytest.raises(UnsupportedError, match="closed"):
        runner.run(_FEEDS)


def test_there_is_no_choice_of_precision() -> None:
    with pytest.raises(OptionError, match="no inference precision 'bf16'"):
        _CPU.runner(_model(_ADD), RunnerOptions(precision="bf16"))


def test_an_output_that_python_cannot_hold() -> None:
    model = Model(
        ir.from_onnx_text(
            '<ir_version: 10, opset_import: ["" : 21]> '
            "g (float[2] x) => (bfloat16[2] y) { y = Cast <to = 16> (x) }"
        )
    )
    with (
        OrtCpu().runner(model, RunnerOptions()) as runner,
        pytest.raises(UnsupportedError, match=r"'y' is a tensor\(bfloat16\)"),
    ):
        runner.run({"x": np.ones(2, np.float32)})


def test_scalars_strings_and_strides() -> None:
    model = _model(
        "m (float x, string[n] s, float[2, 3] t) => (float y, string[n] u, float[2, 3] v)"
        "{ y = Neg(x) u = Identity(s) v = Neg(t) }"
    )
    feeds = {
        "x": np.array(2, np.float32),
        "s": np.array(["a", "b"], object),
        "t": np.arange(6, dtype=np.float32).reshape(3, 2).T,
    }
    with _CPU.runner(model) as runner:
        found = runner.run(feeds)
    assert found["y"] == -2
    assert found["u"].tolist() == ["a", "b"]
    np.testing.assert_array_equal(found["v"], -feeds["t"])


def _matmul(weight: np.ndarray) -> Model:
    w = ir.val("w", const_value=ir.tensor(weight, name="w"))
    x = ir.val("x", ir.DataType.FLOAT, ["b", weight.shape[0]])
    node = ir.node("MatMul", [x, w])
    node.outputs[0].name = "y"
    node.outputs[0].dtype = ir.DataType.FLOAT
    node.outputs[0].shape = ir.Shape(["b", weight.shape[1]])
    graph = ir.Graph([x], node.outputs, nodes=[node], initializers=[w], opset_imports={"": 20})
    return Model(ir.Model(graph, ir_version=10))


def test_large_weights_are_lent_and_not_copied() -> None:
    weight = np.random.default_rng(0).standard_normal((256, 256), np.float32)
    model = _matmul(weight)
    source = ModelSource.of(model)
    assert list(source.weights) == ["w"]
    assert len(source.content) < 1000
    lent = source.weights["w"].numpy()
    assert np.shares_memory(lent, model.ir.graph.initializers["w"].const_value.numpy())
    with _CPU.runner(model) as runner:
        x = np.eye(256, dtype=np.float32)
        np.testing.assert_array_equal(runner.run({"x": x})["y"], weight)


def test_handing_over_leaves_the_model_as_it_was() -> None:
    model = _matmul(np.ones((256, 256), np.float32))
    before = model.text()
    _CPU.runner(model).close()
    assert model.text() == before


def test_weights_in_files_are_read(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((4, 200), np.float32)
    _matmul(weight).save(tmp_path / "m.onnx", external_data=True)
    model = Model.load(tmp_path / "m.onnx")
    with _CPU.runner(model) as runner:
        x = np.eye(4, dtype=np.float32)
        np.testing.assert_array_equal(runner.run({"x": x})["y"], weight)


def test_exact_runs_the_nodes_of_the_model() -> None:
    body = "m (float[b] x) => (float[b] y) { a = Neg(x) b = Neg(a) y = Identity(b) }"
    with _CPU.runner(_model(body), RunnerOptions(exact=True)) as runner:
        assert runner.kernels().counts == {"Identity": 1, "Neg": 2}


def test_nodes_are_counted_by_provider() -> None:
    body = "m (float[b] x) => (float[b] y) { a = Neg(x) b = Abs(a) y = Neg(b) }"
    with _CPU.runner(_model(body)) as runner:
        assert runner.kernels().providers == {"CPUExecutionProvider": 3}


def test_a_large_weight_that_nobody_reads_is_left_out() -> None:
    model = _model("m (float[b, 3] x) => (float[b, 3] y) { y = Neg(x) }")
    left = ir.Value(name="left", const_value=ir.tensor(np.ones((128, 256), np.float32)))
    model.ir.graph.register_initializer(left)
    with _CPU.runner(model) as runner:
        assert runner.run({"x": _FEEDS["x"]})["y"].shape == (2, 3)
    assert "left" in model.ir.graph.initializers
