"""What is written is compared with the model, and the model is as it was afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from irtools.errors import CheckError, FileError
from irtools.model import Model, infer_shapes, may_use
from irtools.model.light import kept_tensors, light_message
from irtools.model.same import is_same_model, same_bytes

TEXT = """
<ir_version: 10, opset_import: ["" : 17]>
g (float[N, 4] x) => (float[N, 300] y) <float[2] b = {1, 2}>
{ h = MatMul (x, w)  y = Neg (h) }
"""


def make(seed: int = 0) -> Model:
    model = ir.from_onnx_text(TEXT)
    array = np.random.default_rng(seed).normal(size=(4, 300)).astype(np.float32)
    weight = ir.Value(name="w", const_value=ir.Tensor(array, name="w"))
    weight.dtype, weight.shape = ir.DataType.FLOAT, ir.Shape(array.shape)
    model.graph.register_initializer(weight)
    next(iter(model.graph)).replace_input_with(1, weight)
    return Model.from_ir(model)


@pytest.mark.parametrize("length", [0, 1, 1 << 22, (1 << 22) + 1])
def test_bytes_are_compared_to_the_last(length: int) -> None:
    one = np.arange(length, dtype=np.uint8)
    other = one.copy()
    assert same_bytes(one.data, other.data) and same_bytes(one.tobytes(), other.data)
    assert not same_bytes(one.data, np.append(other, np.uint8(0)).data)
    if length:
        other[-1] ^= 1
        assert not same_bytes(one.data, other.data)


def _turn(model: Model) -> None:
    next(iter(model.ir.graph)).op_type = "Gemm"


def _touch(model: Model) -> None:
    weight = model.ir.graph.initializers["w"]
    assert weight.const_value is not None
    array = weight.const_value.numpy().copy()
    array[-1, -1] = np.nextafter(array[-1, -1], np.float32(9))
    weight.const_value = ir.Tensor(array, name="w")


def _touch_small(model: Model) -> None:
    bias = model.ir.graph.initializers["b"]
    bias.const_value = ir.Tensor(np.array([1, 3], np.float32), name="b")


@pytest.mark.parametrize("change", [_turn, _touch, _touch_small])
def test_models_are_the_same_if_their_fingerprints_are(change: Callable[[Model], None]) -> None:
    model, other = make(), make()
    assert is_same_model(model.ir, other.ir) and model.fingerprint() == other.fingerprint()
    change(other)
    assert not is_same_model(model.ir, other.ir)
    assert model.fingerprint() != other.fingerprint()


@pytest.mark.parametrize("external", [False, True], ids=["inline", "external"])
def test_what_reads_back_as_another_model_gets_no_name(
    external: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    make(1).save(path)
    before = path.read_bytes()
    monkeypatch.setattr("irtools.model.writer.is_same_model", lambda one, other: False)
    with pytest.raises(CheckError, match="does not read back as the model that was written"):
        make(2).save(path, external_data=external, compared=True)
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"] and path.read_bytes() == before


@pytest.mark.parametrize("external", [False, True], ids=["inline", "external"])
def test_a_compared_save_is_the_same_file(external: bool, tmp_path: Path) -> None:
    model = make()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "m.onnx"
        model.save(path, external_data=external, compared=name == "b")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize("external", [False, True], ids=["inline", "external"])
def test_a_fault_of_the_disk_is_noticed(
    external: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte of a weight, and one that only the message holds."""
    model, read = make(), os.read
    for number in range(1, 4):
        left = [number]

        def faulty(descriptor: int, size: int, left: list[int] = left) -> bytes:
            data = bytearray(read(descriptor, size))
            left[0] -= 1
            if left[0] == 0 and data:
                data[-1] ^= 1
            return bytes(data)

        with monkeypatch.context() as patch, pytest.raises(FileError, match="disk fault"):
            patch.setattr(os, "read", faulty)
            model.save(tmp_path / "m.onnx", external_data=external)
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("external", [False, True], ids=["inline", "external"])
def test_a_model_has_its_tensors_after_a_save(
    external: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make()
    values = list(model.ir.graph.initializers.values())
    before = [value.const_value for value in values]
    model.save(tmp_path / "m.onnx", external_data=external)
    assert [value.const_value for value in values] == before
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model.save(tmp_path / "n.onnx", external_data=external)
    assert [value.const_value for value in values] == before


def test_a_light_message_has_no_large_data_and_leaves_the_model_alone() -> None:
    model = make()
    before = model.fingerprint()
    light = light_message(model.ir)
    sizes = {tensor.name: len(tensor.raw_data) for tensor in light.graph.initializer}
    assert sizes["w"] == 0 and light.ByteSize() < 1000
    with kept_tensors(model.ir):
        model.ir.graph.initializers["w"].const_value = None
    assert model.fingerprint() == before


def _forest(nodes: int) -> onnx.ModelProto:
    """A stump, and nodes after it that no path leads to."""
    rest = nodes - 3
    node = helper.make_node(
        *("TreeEnsembleRegressor", ["x"], ["y"]),
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0] * nodes,
        nodes_nodeids=list(range(nodes)),
        nodes_featureids=[1] * nodes,
        nodes_modes=["BRANCH_LEQ", *["LEAF"] * (nodes - 1)],
        nodes_values=[0.5, *[0.25] * (nodes - 1)],
        nodes_truenodeids=[1] + [0] * (nodes - 1),
        nodes_falsenodeids=[2] + [0] * (nodes - 1),
        target_ids=[0] * (nodes - 1),
        target_nodeids=list(range(1, nodes)),
        target_treeids=[0] * (nodes - 1),
        target_weights=[1.0, 2.0, *[3.0] * rest],
    )
    values = [
        helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 2]),
        helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 1]),
    ]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def test_a_light_message_has_no_trees_and_the_model_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = _forest(5000)
    onnx.save(message, tmp_path / "f.onnx")
    model = Model.load(tmp_path / "f.onnx")
    assert model.notes == ()
    (node,) = model.ir.graph
    assert len(node.attributes["nodes_values"].value) == 5000
    light = light_message(model.ir)
    assert light.ByteSize() < message.ByteSize() / 3
    assert infer_shapes(model.ir, refresh=True) == 0 and str(node.outputs[0].shape) == "[N,1]"
    again = model.save(tmp_path / "again.onnx").files[0]
    assert Model.load(again).fingerprint() == model.fingerprint()
    monkeypatch.setattr("irtools.model.reader._MANY_LISTED", 40_000)
    (note,) = Model.load(tmp_path / "f.onnx").notes
    assert "numbers are in attributes of nodes (TreeEnsembleRegressor)" in note


def test_what_a_file_may_use_is_seen_without_its_weights(tmp_path: Path) -> None:
    model = make()
    weight = model.ir.graph.initializers["w"]
    # The name of an operator as the bytes of a weight.
    data = np.frombuffer(b"MatMulInteger" + bytes(4787), np.float32).reshape(4, 300)
    weight.const_value = ir.Tensor(data, name="w")
    path = model.save(tmp_path / "m.onnx").files[0]
    assert may_use(path, ["MatMul"]) and may_use(path, ["Conv", "Neg"])
    assert not may_use(path, ["MatMulInteger", "DequantizeLinear"])
