"""Weights mapped from a file are resident while they are read and no longer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.errors import FileError
from irtools.model import Model, WeightStore, place_of, release_tensor, writer
from irtools.model.digest import tensor_digest
from irtools.passmanager.workspace import Workspace

_WEIGHTS, _ROWS = 6, 2 << 20  # 8 MB each.


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A model whose weights are 48 MB, in a file next to it."""
    rng = np.random.default_rng(0)
    values = []
    for number in range(_WEIGHTS):
        array = rng.integers(0, 9, _ROWS).astype(np.float32)
        values.append(ir.Value(name=f"w{number}", const_value=ir.Tensor(array, name=f"w{number}")))
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1]))
    node = ir.node("Sum", [x, *values])
    y = node.outputs[0]
    y.name, y.type, y.shape = "y", x.type, ir.Shape([_ROWS])
    for value in values:
        assert value.const_value is not None
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([_ROWS])
    graph = ir.Graph([x], [y], nodes=[node], initializers=values, opset_imports={"": 17})
    Model.from_ir(ir.Model(graph, ir_version=10)).save(tmp_path / "m.onnx", external_data=True)
    return tmp_path / "m.onnx"


def mapped_bytes() -> int:
    """Resident pages that are backed by a file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssFile:"):
            return int(line.split()[1]) * 1024
    pytest.skip("the system does not report it")


def test_a_fingerprint_and_a_save_leave_no_weights_in_memory(saved: Path, tmp_path: Path) -> None:
    model = Model.load(saved)
    before = mapped_bytes()
    text = model.fingerprint()
    model.save(tmp_path / "copy.onnx", external_data=True)
    assert mapped_bytes() - before < 4 << 20
    assert Model.load(tmp_path / "copy.onnx").fingerprint() == text


def test_a_weight_is_the_same_after_it_was_let_go(saved: Path) -> None:
    model = Model.load(saved)
    tensor = model.ir.graph.initializers["w3"].const_value
    assert tensor is not None
    before, array = mapped_bytes(), tensor.numpy()
    total = float(array.sum())
    assert mapped_bytes() - before > 7 << 20
    release_tensor(tensor)
    assert mapped_bytes() - before < 1 << 20
    assert float(array.sum()) == total


def test_a_tensor_of_no_file_is_left_alone() -> None:
    tensor = ir.Tensor(np.arange(5, dtype=np.float32), name="t")
    release_tensor(tensor)
    assert tensor.numpy().tolist() == [0, 1, 2, 3, 4]
    assert tensor_digest(tensor) == tensor_digest(ir.Tensor(np.arange(5, dtype=np.float32)))


def test_models_of_one_folder_share_weights(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    model, store = Model.load(saved), WeightStore()
    first = model.save(folder / "first.onnx", external_data=True, store=store)
    changed = model.clone()
    value = changed.ir.graph.initializers["w3"]
    value.const_value = ir.Tensor(np.full(_ROWS, 7, np.float32), name="w3")
    second = changed.save(folder / "second.onnx", external_data=True, store=store)
    third = changed.save(folder / "third.onnx", external_data=True, store=store)
    assert [len(one.files) for one in (first, second, third)] == [2, 2, 1]
    assert second.files[1].stat().st_size == 4 * _ROWS
    assert second.size == pytest.approx(first.size, rel=1e-3)
    assert Model.load(first.files[0]).fingerprint() == model.fingerprint()
    for one in (second, third):
        assert Model.load(one.files[0]).fingerprint() == changed.fingerprint()


def test_a_save_that_fails_leaves_nothing_in_the_store(saved: Path, tmp_path: Path) -> None:
    store = WeightStore()
    with pytest.raises(FileError):
        Model.load(saved).save(tmp_path / "no folder" / "m.onnx", external_data=True, store=store)
    assert not store.places


def test_a_workspace_writes_each_weight_of_large_models_once(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "EXTERNAL_ABOVE", 1 << 20)
    monkeypatch.setattr("irtools.model.EXTERNAL_ABOVE", 1 << 20)
    model = Model.load(saved)
    renamed = model.clone()
    renamed.ir.graph.name = "renamed"
    with Workspace() as workspace:
        planned = workspace.size(renamed)
        paths = [workspace.path(one) for one in (model, renamed, model)]
        assert paths[0] == paths[2] != paths[1]
        # Nothing is written to learn a size.
        assert workspace.size(renamed) == pytest.approx(planned, rel=1e-3)
        assert planned > _WEIGHTS * 4 * _ROWS
        files = [path for path in paths[0].parent.iterdir() if path.suffix == ".data"]
        assert len(files) == 1
        assert Model.load(paths[1]).fingerprint() == renamed.fingerprint()


def test_what_is_timed_is_one_file_and_what_is_checked_shares_weights(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("irtools.passmanager.workspace._SHARED_ABOVE", 1 << 20)
    model = Model.load(saved)
    other = model.clone()
    other.ir.graph.name = "other"
    with Workspace() as workspace:
        planned = workspace.size(model)
        checked = [workspace.path(one) for one in (model, other)]
        assert len({path.parent for path in checked}) == 1
        assert len(list(checked[0].parent.glob("*.data"))) == 1
        # The size is that of the file by itself, whatever was written to be checked.
        assert workspace.size(model) == planned
        timed = workspace.timed_path(model)
        assert list(timed.parent.iterdir()) == [timed] and timed.stat().st_size == planned
        assert workspace.timed_path(model) == timed and workspace.path(model) == checked[0]
        names = {workspace.path(model.clone()).name for _ in range(3)}
        assert len(names) == 3 and not names & {path.name for path in checked}
        for path in (*checked, timed):
            expected = other if path == checked[1] else model
            assert Model.load(path).fingerprint() == expected.fingerprint()


def _made(model: Model) -> Model:
    """A model as a pass leaves it: one weight is new, in memory."""
    changed = model.clone()
    new = ir.Tensor(np.full(_ROWS, 7, np.float32), name="w3")
    changed.ir.graph.initializers["w3"].const_value = new
    return changed


def test_a_large_model_that_was_settled_lies_in_files(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "EXTERNAL_ABOVE", 1 << 20)
    monkeypatch.setattr("irtools.model.EXTERNAL_ABOVE", 1 << 20)
    changed = _made(Model.load(saved))
    text = changed.fingerprint()
    with Workspace(lambda model: Model(model.ir.clone())) as workspace:
        written = workspace.deployed(changed)
        workspace.spill_weights(changed)
        for form in (changed, written):
            tensors = [value.const_value for value in form.ir.graph.initializers.values()]
            places = [place_of(tensor) for tensor in tensors if tensor is not None]
            # All in one folder: a runtime reads those of one only.
            assert len({place[0].path.parent for place in places if place}) == 1
            assert None not in places
        assert written.fingerprint() == text
    # The files are gone, what is mapped is not.
    assert changed.fingerprint() == text
    changed.save(tmp_path / "later.onnx", external_data=True)
    assert Model.load(tmp_path / "later.onnx").fingerprint() == text


def test_what_is_small_or_finds_no_room_stays_in_memory(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = _made(Model.load(saved))
    new = changed.ir.graph.initializers["w3"].const_value
    with Workspace() as workspace:
        workspace.spill_weights(changed)
        monkeypatch.setattr(writer, "EXTERNAL_ABOVE", 1 << 20)
        monkeypatch.setattr("irtools.model.EXTERNAL_ABOVE", 1 << 20)

        def full(*arguments: object, **options: object) -> None:
            raise FileError("no space left")

        monkeypatch.setattr(Model, "save", full)
        workspace.spill_weights(changed)
    assert changed.ir.graph.initializers["w3"].const_value is new
