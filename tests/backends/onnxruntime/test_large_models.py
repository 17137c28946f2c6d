"""Models too large to be copied into the runtime's own layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from irtools.backends.onnxruntime import source
from irtools.backends.onnxruntime.source import ModelSource
from irtools.model import Model
from irtools.targets import RunnerOptions, find_target


def make_model(op_type: str = "MatMul", domain: str = "") -> Model:
    """x [N, 128] @ w [128, 256]."""
    array = np.random.default_rng(0).normal(size=(128, 256)).astype(np.float32)
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["N", 128]))
    w = ir.Value(name="w", const_value=ir.Tensor(array, name="w"))
    w.type, w.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([128, 256])
    node = ir.Node(domain, op_type, [x, w])
    y = node.outputs[0]
    y.name, y.type, y.shape = "y", x.type, ir.Shape(["N", 256])
    imports = {"": 17, "com.microsoft": 1}
    graph = ir.Graph([x], [y], nodes=[node], initializers=[w], opset_imports=imports)
    return Model(ir.Model(graph, ir_version=10))


def test_the_answer_is_the_same_without_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    feeds = {"x": np.random.default_rng(1).normal(size=(3, 128)).astype(np.float32)}
    answers = []
    for limit in (1 << 30, 1000):
        monkeypatch.setattr(source, "_COPIED_UP_TO", limit)
        with find_target("ort-cpu").runner(make_model(), RunnerOptions(threads=1)) as runner:
            answers.append(runner.run(feeds)["y"])
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-5, atol=1e-5)


def test_weights_in_a_file_are_read_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_model().save(tmp_path / "m.onnx", external_data=True)
    feeds = {"x": np.random.default_rng(1).normal(size=(3, 128)).astype(np.float32)}
    with find_target("ort-cpu").runner(make_model(), RunnerOptions(threads=1)) as runner:
        wanted = runner.run(feeds)["y"]
    monkeypatch.setattr(source, "_COPIED_UP_TO", 1000)
    model = Model.load(tmp_path / "m.onnx")
    made = ModelSource.of(model)
    assert made.folder == tmp_path and not made.weights
    with find_target("ort-cpu").runner(model, RunnerOptions(threads=1)) as runner:
        np.testing.assert_allclose(runner.run(feeds)["y"], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frugal", [True, False])
def test_a_frugal_session_packs_no_file_of_gigabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, frugal: bool
) -> None:
    path = make_model().save(tmp_path / "m.onnx", external_data=True).files[0]
    monkeypatch.setattr(source, "_COPIED_UP_TO", 1000)
    assert ModelSource.of(path, mapped=frugal).packs is not frugal
    made = []
    share = ModelSource.share_weights

    def watched(self: ModelSource, options: object) -> None:
        made.append(self.packs)
        share(self, options)

    monkeypatch.setattr(ModelSource, "share_weights", watched)
    with find_target("ort-cpu").runner(path, RunnerOptions(threads=1, frugal=frugal)):
        assert made == [not frugal]


def test_weights_of_a_file_that_is_gone_are_lent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "_COPIED_UP_TO", 1000)
    files = make_model().save(tmp_path / "m.onnx", external_data=True).files
    model = Model.load(files[0])
    files[1].unlink()
    assert set(ModelSource.of(model).weights) == {"w"}
    files[1].write_bytes(bytes(4 * 128 * 256))
    assert set(ModelSource.of(model).weights) == {"w"}


def test_only_large_floats_stay_as_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ModelSource.of(make_model()).packs
    monkeypatch.setattr(source, "_COPIED_UP_TO", 1000)
    assert not ModelSource.of(make_model()).packs
    # Kernels for blocks of codes compute in float32 without their own layout: other numbers.
    assert ModelSource.of(make_model("MatMulNBits", "com.microsoft")).packs


TIED = """
<ir_version: 10, opset_import: ["" : 17]>
g (int64[b, s] ids) =>
(float[b, s, 256] y, float[256, 128] shown, float[128, 128] z, float[128, 256] doubled)
<float[256, 128] table, float[256, 128] other, float[256, 128] left, float[256, 128] scaled,
 float two = {2}>
{
    h = Gather(table, ids)
    turned = Transpose<perm = [1, 0]>(table)
    y = MatMul(h, turned)
    square = Transpose(other)
    shown = Transpose(square)
    k = MatMul(h, square)
    first = Transpose(left)
    z = MatMul(first, table)
    second = Transpose(scaled)
    doubled = Mul(two, second)
}
"""


def test_a_transposed_weight_is_read_as_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = onnx.parser.parse_model(TIED)
    rng = np.random.default_rng(0)
    for name in ("table", "other", "left", "scaled"):
        array = rng.normal(size=(256, 128)).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    model = Model.from_proto(proto)
    feeds = {"ids": rng.integers(0, 256, (2, 5))}
    answers, options = [], RunnerOptions(threads=1, exact=True)
    for limit in (1 << 30, 1000):
        monkeypatch.setattr(source, "_COPIED_UP_TO", limit)
        with find_target("ort-cpu").runner(model, options) as runner:
            answers.append(runner.run(feeds))
    for name, array in answers[0].items():
        np.testing.assert_allclose(array, answers[1][name], rtol=1e-5, atol=1e-4)
    made = ir.from_proto(onnx.load_from_string(ModelSource.of(model, on_cpu=True).content))
    assert [node.op_type for node in made.graph] == [
        *("Gather", "FusedMatMul", "Transpose", "Transpose", "MatMul"),
        *("Transpose", "MatMul", "Transpose", "Mul"),
    ]
    assert "Transpose" in {node.op_type for node in model.ir.graph}
