"""Rows of a task: ours next to those of other tools."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import Dataset
from irtools.measure.base import BenchSettings

if TYPE_CHECKING:
    from benchmarks.contest import ContestTask
    from benchmarks.peers import Feeds

ROOT = Path(__file__).resolve().parents[2]
WEIGHT = np.random.default_rng(0).standard_normal((4, 3)).round(2)


def write(path: Path, weight: np.ndarray) -> Path:
    """x [b, 4] -> logits [b, 3]."""
    numbers = ", ".join(str(float(x)) for x in weight.reshape(-1))
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
    g (float[b, 4] x) => (float[b, 3] logits) <float[4, 3] w = {{{numbers}}}> {{
      y = Identity (x) logits = MatMul (y, w)
    }}"""
    ir.save(ir.from_onnx_text(text), path)
    return path


def as_it_is(model: Path, samples: Sequence[Feeds], folder: Path) -> Path:
    return model


def turned(model: Path, samples: Sequence[Feeds], folder: Path) -> Path:
    """A tool that takes the first two classes for each other."""
    return write(folder / "turned.onnx", WEIGHT[:, [1, 0, 2]])


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ContestTask:
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.contest import ContestTask, Ours
    from benchmarks.peers import Peer

    x = np.random.default_rng(1).standard_normal((32, 4)).astype(np.float32)
    data = Dataset({"x": x}, (x @ WEIGHT).argmax(axis=1), "test.npz")
    peers = [Peer("ORT fp32", "ort-cpu", None, as_it_is), Peer("turned", "ort-cpu", None, turned)]
    ours = [Ours("irtools", "cleanup"), Ours("irtools, fixed", "cleanup", fixed=True)]
    model = write(tmp_path / "model.onnx", WEIGHT)
    timed = ("batch=1", {"x": x[:1]})
    return ContestTask("tiny", model, data, data, timed, ours, peers, BenchSettings())


@pytest.mark.slow
def test_rows_are_compared_with_the_first_and_kept(task: ContestTask, tmp_path: Path) -> None:
    from benchmarks.contest import TaskContest, table

    rows = TaskContest(task, tmp_path / "made").rows(None)
    assert [row["name"] for row in rows] == ["ORT fp32", "turned", "irtools", "irtools, fixed"]
    assert rows[1]["accuracy"] < 1 and rows[1]["difference"][2] < 0
    assert all((row["agreement"], row["accuracy"]) == (1, 1) for row in (rows[0], *rows[2:]))
    assert rows[2]["difference"] == [0, 0, 0] and "difference" not in rows[0]
    assert "| turned |  |  |" in "\n".join(table(rows))
    place = tmp_path / "made" / "turned.judged.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"accuracy": 0.5}))
    assert TaskContest(task, tmp_path / "made").rows(None)[1]["accuracy"] == 0.5
