"""Weights that a file lists as inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from irtools import optimize
from irtools.model import Model

RNG = np.random.default_rng(0)
WEIGHTS = {
    "w": RNG.normal(size=(64, 96)).astype(np.float32),
    "b": RNG.normal(size=96).astype(np.float32),
}


def message(ir_version: int, listed: tuple[str, ...], **weights: np.ndarray) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    inputs = [helper.make_tensor_value_info("x", 1, ["n", 64])]
    inputs += [
        helper.make_tensor_value_info(t.name, t.data_type, t.dims)
        for t in tensors
        if t.name in listed
    ]
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"])
    graph = helper.make_graph(
        [node], "g", inputs, [helper.make_tensor_value_info("y", 1, ["n", 96])], tensors
    )
    opset = helper.make_opsetid("", 8 if ir_version == 3 else 9)
    return helper.make_model(graph, ir_version=ir_version, opset_imports=[opset])


@pytest.mark.parametrize("ir_version", [3, 4, 8])
def test_a_list_of_all_weights_is_the_habit_of_an_exporter(ir_version: int, tmp_path: Path) -> None:
    onnx.save(message(ir_version, ("w", "b"), **WEIGHTS), tmp_path / "m.onnx")
    model = Model.load(tmp_path / "m.onnx")
    assert [value.name for value in model.ir.graph.inputs] == ["x"]
    assert model.notes == (
        "the file lists 2 weights as inputs, as all files had to before IR version 4: taken as "
        "constants",
    )
    written = Model(model.ir).to_proto()
    onnx.checker.check_model(written, full_check=True)
    x = RNG.normal(size=(3, 64)).astype(np.float32)
    session = onnxruntime.InferenceSession(written.SerializeToString())
    (found,) = session.run(None, {"x": x})
    np.testing.assert_allclose(found, x @ WEIGHTS["w"] + WEIGHTS["b"], atol=1e-4)


def test_a_weight_among_others_is_an_offer_to_callers(tmp_path: Path) -> None:
    onnx.save(message(4, ("b",), **WEIGHTS), tmp_path / "m.onnx")
    model = Model.load(tmp_path / "m.onnx")
    assert [value.name for value in model.ir.graph.inputs] == ["x", "b"]
    assert not model.notes


def test_a_threshold_alone_is_an_offer_to_callers() -> None:
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "t"], ["y"])],
        "g",
        [helper.make_tensor_value_info(name, 1, []) for name in ("x", "t")],
        [helper.make_tensor_value_info("y", 1, [])],
        [numpy_helper.from_array(np.float32(0.5), "t")],
    )
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    assert len(Model.from_proto(made).ir.graph.inputs) == 2


def test_listed_weights_are_quantized_and_told(tmp_path: Path) -> None:
    onnx.save(message(4, ("w", "b"), **WEIGHTS), tmp_path / "m.onnx")
    done = optimize(tmp_path / "m.onnx", "int8", bench=None, reproducer=False)
    assert done.report.rows[-1].modified
    assert any("lists 2 weights" in verdict.text for verdict in done.report.verdicts)
