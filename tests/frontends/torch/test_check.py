"""Where the weights of an export are while it is checked."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.errors import FileError, ModelError
from irtools.frontends.torch import check
from irtools.frontends.torch.check import PlainTrial, compare, in_file
from irtools.model import Model, place_of


def make_model() -> Model:
    """x [N, 64] @ w [64, 32], the weight a view of [32, 64] as torch's exporter leaves it."""
    array = np.random.default_rng(0).normal(size=(32, 64)).astype(np.float32)
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["N", 64]))
    w = ir.Value(name="w", const_value=ir.Tensor(array.T, name="w"))
    w.type, w.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([64, 32])
    node = ir.node("MatMul", [x, w])
    y = node.outputs[0]
    y.name, y.type, y.shape = "y", x.type, ir.Shape(["N", 32])
    graph = ir.Graph([x], [y], nodes=[node], initializers=[w], opset_imports={"": 20})
    return Model.from_ir(ir.Model(graph, ir_version=10), Path("somewhere"))


def test_outputs_that_are_no_numbers_are_told() -> None:
    model = make_model()
    feeds = {"x": np.full((1, 64), np.nan, np.float32)}
    trial = PlainTrial(feeds, {"y": np.full((1, 32), np.nan, np.float32)}, "batch 1")
    with pytest.raises(ModelError, match="'y' is NaN or infinite at batch 1"):
        compare(model, [trial], "net")


def test_an_export_that_does_not_run_is_no_fault_of_the_data() -> None:
    feeds = {"x": np.ones((1, 63), np.float32)}
    trial = PlainTrial(feeds, {"y": np.ones((1, 32), np.float32)}, "batch 1")
    with pytest.raises(ModelError, match=r"export of net is wrong: it does not run at batch 1"):
        compare(make_model(), [trial], "net")


def test_a_small_model_stays_in_memory(tmp_path: Path) -> None:
    model = make_model()
    assert in_file(model, tmp_path) is model
    assert not list(tmp_path.iterdir())


def test_a_large_model_is_mapped_and_torch_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "_IN_MEMORY_UP_TO", 1000)
    model = make_model()
    fingerprint = model.fingerprint()
    found = in_file(model, tmp_path)
    assert found.fingerprint() == fingerprint
    assert found.source == Path("somewhere")
    tensor = found.ir.graph.initializers["w"].const_value
    assert tensor is not None and place_of(tensor) is not None
    assert model.ir.graph.initializers["w"].const_value is None
    for file in tmp_path.iterdir():
        file.unlink()
    assert found.fingerprint() == fingerprint
    assert np.isfinite(tensor.numpy()).all()


def test_a_full_temporary_folder_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(check, "_IN_MEMORY_UP_TO", 1000)
    folder = tmp_path / "irc-1"
    folder.mkdir()
    model = make_model()
    with monkeypatch.context() as broken, pytest.raises(FileError) as caught:
        broken.setattr(os, "write", full)
        in_file(model, folder)
    assert f"folder {folder} cannot take 0.0 GB of weights" in str(caught.value)
    assert "--work-dir DIR or TMPDIR" in str(caught.value) and "is full" in str(caught.value)
