"""What a person sees while a model is read."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from irtools.driver import job
from irtools.model import Model
from irtools.sources import LoadOptions


class _Lines:
    def __init__(self) -> None:
        self.labels: list[str] = []

    def step(self, label: str, done: int, total: int) -> None:
        self.labels.append(label)


@pytest.mark.parametrize(("large", "expected"), [(1, ["reading m.onnx (93 B)"]), (1000, [])])
def test_a_large_file_is_named_before_it_is_read(
    large: int, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "_LARGE_FILE", large)
    text = (
        '<ir_version: 10, opset_import: ["" : 20]> g (float[2] x) => (float[2] y) { y = Neg (x) }'
    )
    path = Model(ir.from_onnx_text(text)).save(tmp_path / "m.onnx").files[0]
    lines = _Lines()
    job.as_model(path, LoadOptions(), lines)
    size = path.stat().st_size
    assert lines.labels == [label.replace("93", str(size)) for label in expected]
