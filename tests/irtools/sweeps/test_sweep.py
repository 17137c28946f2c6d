"""The same for many models: one that fails, what is there already, and workers that are lost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irtools.cli.main import run
from irtools.driver.settings import Settings
from irtools.errors import ClusterError, UsageError
from irtools.executors import Answered, Event, Hardware, Lost, ServiceSpec, Worker
from irtools.executors.base import make_service
from irtools.model import Model
from irtools.sweeps import Entry, Request, SweepDocument, names_of, sweep, sweep_cells
from irtools.testing import read_model

TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[N, 4] x, float[4, 4] w) => (float[N, 4] y) { h = MatMul (x, w) y = Identity (h) }
"""


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    """Two models, and a file that is none."""
    found = []
    for number in (1, 2):
        model = read_model(TEXT, {"w": np.eye(4, dtype=np.float32) * number})
        model.save(tmp_path / f"m{number}.onnx")
        found.append(str(tmp_path / f"m{number}.onnx"))
    (tmp_path / "broken.onnx").write_text("no model")
    return [*found, str(tmp_path / "broken.onnx")]


class Workers:
    """Two workers in this process; the first job of the first one is lost with it."""

    name = "fake"
    shares_files = False

    def __init__(self, *, dies: bool = False) -> None:
        self.dies = dies
        self.asked: list[tuple[str, Any]] = []
        self.answered = 0

    def start(self, spec: ServiceSpec) -> Sequence[Worker]:
        self.service = make_service(spec)
        hardware = Hardware("vnni", 2, "a CPU")
        return [Worker(name, name, hardware, name) for name in ("a", "b")]

    def send(self, worker: str, payload: Any) -> None:
        self.asked.append((worker, payload))

    def poll(self) -> Sequence[Event]:
        worker, payload = self.asked.pop(0)
        if self.dies and self.answered:
            raise ClusterError("the cluster fake no longer answers")
        if worker == "a":
            return [Lost("a", "killed")]
        self.answered += 1
        return [Answered(worker, self.service.answer(payload))]

    def close(self) -> None:
        pass


def outcomes(found: SweepDocument) -> dict[str, str]:
    return {one.name: one.outcome for one in found.models}


UNTIMED = Request("cleanup", Settings(bench=None))


def test_the_others_go_on_and_what_is_there_stays(
    models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["sweep", *models, "-p", "cleanup", "--no-bench", "-o", str(out), "--no-cache"]
    assert run(command) == 3
    said = capsys.readouterr().err
    assert "irc: broken: failed: " in said and "1 of 3 models failed" in said
    listed = json.loads((out / "sweep.json").read_text())
    assert listed["format"] == "irtools-sweep"
    assert [one["outcome"] for one in listed["models"]] == ["done", "done", "failed"]
    assert listed["models"][0]["figures"]["bytes"] > 0
    made = Model.load(out / "m2" / "model.onnx")
    assert [node.op_type for node in made.ir.graph] == ["MatMul"]
    assert (out / "m2" / "report.json").is_file() and not (out / "broken").exists()

    read_model(TEXT, {"w": np.ones((4, 4), np.float32)}).save(models[0])
    assert run([*command[:1], *models[:2], *command[4:]]) == 0
    said = capsys.readouterr().err
    assert "irc: m1: done" in said and "irc: m2: unchanged" in said


def test_a_lost_model_is_made_elsewhere(models: list[str], tmp_path: Path) -> None:
    found = sweep(models[:2], UNTIMED, tmp_path / "out", Workers())
    assert outcomes(found) == {"m1": "done", "m2": "done"}
    headings = sweep_cells(found).headings
    assert headings[:3] == ("model", "outcome", "size")


def test_a_dead_cluster_keeps_what_was_made(models: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ClusterError, match=r"1 of 2 models are in .*: the same command goes"):
        sweep(models[:2], UNTIMED, out, Workers(dies=True))
    assert sorted(outcomes(sweep(models[:2], UNTIMED, out)).values()) == ["done", "unchanged"]


def test_a_model_that_was_damaged_is_made_again(models: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    sweep(models[:2], UNTIMED, out)
    file = out / "m1" / "model.onnx"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert outcomes(sweep(models[:2], UNTIMED, out)) == {"m1": "done", "m2": "unchanged"}
    assert file.read_bytes() == content


def test_a_folder_of_other_files_is_left_alone(models: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds other files than a sweep's"):
        sweep(models, UNTIMED, tmp_path)


def test_names_of_models() -> None:
    assert names_of(["a/x.onnx", "b/y.onnx"]) == {"a/x.onnx": "x", "b/y.onnx": "y"}
    found = names_of(["bert/model.onnx", "gpt/model.onnx"])
    assert list(found.values()) == ["bert-model", "gpt-model"]
    with pytest.raises(UsageError, match="is given twice"):
        names_of(["x.onnx", "x.onnx"])
    with pytest.raises(UsageError, match="would have the same folder a-model"):
        names_of(["1/a/model.onnx", "2/a/model.onnx"])


def test_the_table_has_what_was_measured() -> None:
    figures = {"original_ms": 2.0, "ms": 1.0, "speedup": 2.0, "speedup_low": 1.9}
    figures |= {"speedup_high": 2.1, "original_bytes": 2000, "bytes": 1000}
    one = Entry("a", "a.onnx", "done", "", pipeline="int8", figures=figures)
    cells = sweep_cells(SweepDocument("ort-cpu", "int8", (), (one,)))
    assert cells.headings == ("model", "outcome", "size", "latency", "faster", "pipeline")
    shown = ("a", "done", "2.0 kB to 1.0 kB", "2 to 1 ms", "2.00x [1.90, 2.10]", "int8")
    assert cells.rows == (shown,)
