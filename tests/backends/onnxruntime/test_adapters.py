"""Adapter files of ONNX Runtime: read back, used in runs, refused where they differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.errors import FileError, ModelError
from irtools.model import Model
from irtools.targets import SwitchesAdapters, TakesAdapters, find_target

X = np.array([[1.0, 2.0]], np.float32)


@pytest.fixture
def model() -> Model:
    """y = x a with an `a` [2, n] that has a default of zeros."""
    kind = ir.TensorType(ir.DataType.FLOAT)
    x = ir.Value(name="x", type=kind, shape=ir.Shape([1, 2]))
    a = ir.Value(name="a", type=kind, shape=ir.Shape([2, "n"]))
    a.const_value = ir.tensor(np.zeros((2, 1), np.float32), name="a")
    node = ir.node("MatMul", [x, a])
    (y,) = node.outputs
    y.name, y.type, y.shape = "y", kind, ir.Shape([1, "n"])
    graph = ir.Graph([x, a], [y], nodes=[node], initializers=[a], opset_imports={"": 20}, name="g")
    return Model.from_ir(ir.Model(graph, ir_version=10))


def written(path: Path, **arrays: np.ndarray) -> Path:
    target = find_target("ort-cpu")
    assert isinstance(target, TakesAdapters)
    target.write_adapter(path, arrays)
    return path


def test_an_adapter_is_used_until_the_next_one(model: Model, tmp_path: Path) -> None:
    one = written(tmp_path / "one.onnx_adapter", a=np.array([[1], [0]], np.float32))
    two = written(tmp_path / "two.onnx_adapter", a=np.array([[0, 1], [1, 1]], np.float32))
    with find_target("ort-cpu").runner(model) as runner:
        assert isinstance(runner, SwitchesAdapters)
        assert runner.run({"x": X})["y"].tolist() == [[0]]
        for path, wanted in ((one, [[1]]), (two, [[2, 3]]), (None, [[0]])):
            runner.use_adapter(path)
            assert runner.run({"x": X})["y"].tolist() == wanted


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros((3, 1), np.float32)}, r"'a' is \[3, 1\], and the model takes \[2, rank\]"),
        ({"b": np.zeros((2, 1), np.float32)}, "1 array of 1 have no input here, 'b' first"),
        ({"x": np.zeros((1, 2), np.float32)}, "1 array of 1 have no input here, 'x' first"),
        ({"a": np.zeros((2, 1), np.float16)}, "'a' is float16, and the model takes float32"),
        ({"a": np.full((2, 1), np.inf, np.float32)}, "damaged: 'a' has numbers that are not fin"),
        ({}, "holds no array"),
    ],
)
def test_an_adapter_for_another_model_is_refused(
    model: Model, tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    path = written(tmp_path / "other.onnx_adapter", **arrays)
    with find_target("ort-cpu").runner(model) as runner, pytest.raises(ModelError, match=message):
        runner.use_adapter(path)  # type: ignore[attr-defined]


@pytest.fixture
def layers() -> Model:
    """q = x Aq Bq and k = x Ak Bk, with one A for both."""
    return Model(
        ir.from_onnx_text(
            """
            <ir_version: 10, opset_import: ["" : 20]>
            layers (float[1,2] x, float[2,N] "m.q.k.lora_A", float[R,3] "m.q.lora_B",
                    float[R,4] "m.k.lora_B") => (float[1,3] q, float[1,4] k)
            <float[2,2] "m.q.k.lora_A" = {0,0,0,0}, float[1,3] "m.q.lora_B" = {0,0,0},
             float[1,4] "m.k.lora_B" = {0,0,0,0}>
            {
              low = MatMul (x, "m.q.k.lora_A")
              l, r = Split <axis = -1, num_outputs = 2> (low)
              q = MatMul (l, "m.q.lora_B")
              k = MatMul (r, "m.k.lora_B")
            }
            """
        )
    )


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"m.k.lora_B": (1, 4)}, "'m.k.lora_B' has rank 1, and 'm.q.k.lora_A' 4 columns; expect"),
        ({"m.q.k.lora_A": (2, 3)}, "4, the rank for each of 2 layers"),
        ({"m.q.k.lora_A": None}, "has 'm.q.lora_B' without 'm.q.k.lora_A': expected both"),
        ({"m.q.lora_B": None, "m.k.lora_B": None}, "has 'm.q.k.lora_A' without 'm.q.lora_B'"),
    ],
)
def test_factors_of_different_ranks_are_refused(
    layers: Model, tmp_path: Path, sizes: dict[str, tuple[int, int] | None], message: str
) -> None:
    fitting = {"m.q.k.lora_A": (2, 4), "m.q.lora_B": (2, 3), "m.k.lora_B": (2, 4)}
    given = {name: size for name, size in (fitting | sizes).items() if size is not None}
    with find_target("ort-cpu").runner(layers) as runner:
        assert isinstance(runner, SwitchesAdapters)
        for number, shapes in enumerate((fitting, given)):
            path = tmp_path / f"{number}.onnx_adapter"
            written(path, **{name: np.ones(size, np.float32) for name, size in shapes.items()})
            if number:
                with pytest.raises(ModelError, match=message):
                    runner.use_adapter(path)
            else:
                runner.use_adapter(path)
                assert runner.run({"x": X})["k"].tolist() == [[6, 6, 6, 6]]


def test_what_is_no_adapter_is_refused(model: Model, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx_adapter"
    broken.write_bytes(b"no adapter at all")
    with find_target("ort-cpu").runner(model) as runner:
        with pytest.raises(FileError, match="is not an adapter"):
            runner.use_adapter(broken)  # type: ignore[attr-defined]
        with pytest.raises(FileError, match="there is no adapter file"):
            runner.use_adapter(tmp_path / "absent.onnx_adapter")  # type: ignore[attr-defined]
