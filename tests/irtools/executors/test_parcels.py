"""Files that travel: a model with its weights, a folder, and other values."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from irtools.executors import packed, unpacked
from irtools.model import Model
from irtools.testing import read_model

TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[N, 64] x, float[64, 64] w) => (float[N, 64] y) { y = MatMul (x, w) }
"""


def test_a_model_travels_with_its_weights_and_tokenizer(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    model = read_model(TEXT, {"w": np.eye(64, dtype=np.float32)})
    model.save(here / "m.onnx", external_data=True)
    (here / "tokenizer.json").write_text("{}")
    (here / "other.bin").write_text("not of the model")
    parcel = packed(here / "m.onnx", shares_files=False)
    found = unpacked(parcel, there)
    assert Model.load(found).fingerprint() == Model.load(here / "m.onnx").fingerprint()
    names = sorted(path.name for path in there.iterdir())
    assert names == ["m.onnx", "m.onnx.data", "tokenizer.json"]


def test_a_folder_travels_whole(tmp_path: Path) -> None:
    (tmp_path / "data" / "cats").mkdir(parents=True)
    (tmp_path / "data" / "cats" / "1.txt").write_text("cat")
    found = unpacked(packed(str(tmp_path / "data"), shares_files=False), tmp_path / "there")
    assert (Path(found) / "cats" / "1.txt").read_text() == "cat"


def test_what_workers_see_and_what_is_no_file_stays(tmp_path: Path) -> None:
    assert packed(str(tmp_path), shares_files=True) == str(tmp_path)
    assert packed("my.module:data", shares_files=False) == "my.module:data"
    assert packed(None, shares_files=False) is None
