"""A folder with a small model, and `irc` run in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.cli.main import run


@dataclass(frozen=True)
class Outcome:
    """What a command left."""

    code: int
    out: str
    err: str


Irc = Callable[..., Outcome]


@pytest.fixture
def irc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Irc:
    """Run `irc` in a folder that holds `model.onnx` and labelled data `data.npz`."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((160, 64)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, labels=_logits(x).argmax(axis=-1))

    def call(*args: str) -> Outcome:
        capfd.readouterr()
        code = run(args)
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture
def much(tmp_path: Path) -> str:
    """A file of 1,200 samples, of which the labels are what the model says."""
    x = np.random.default_rng(5).standard_normal((1200, 64)).astype(np.float32)
    np.savez(tmp_path / "much.npz", x=x, labels=_logits(x).argmax(axis=-1))
    return "much.npz"


def _weights() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    first = rng.standard_normal((64, 512)).astype(np.float32)
    return first, rng.standard_normal((512, 64)).astype(np.float32) / 24


def _logits(x: np.ndarray) -> np.ndarray:
    first, second = _weights()
    return np.asarray(np.maximum(x @ first, 0) @ second)


def write_model(path: Path, hidden: str = "h") -> None:
    """x [batch, 64] -> logits [batch, 64]: two layers, and an Identity to clean up."""
    first, second = _weights()
    x = ir.val("x", ir.DataType.FLOAT, ir.Shape(["batch", 64]))
    w1 = ir.val("w1", const_value=ir.tensor(first, name="w1"))
    w2 = ir.val("w2", const_value=ir.tensor(second, name="w2"))
    nodes = [ir.node("MatMul", [x, w1], name="fc1")]
    nodes[0].outputs[0].name = hidden
    nodes.append(ir.node("Relu", nodes[-1].outputs))
    nodes.append(ir.node("Identity", nodes[-1].outputs))
    nodes.append(ir.node("MatMul", [nodes[-1].outputs[0], w2], name="fc2"))
    out = nodes[-1].outputs[0]
    out.name, out.type = "logits", ir.TensorType(ir.DataType.FLOAT)
    out.shape = ir.Shape(["batch", 64])
    graph = ir.Graph(
        [x], [out], nodes=nodes, initializers=[w1, w2], opset_imports={"": 20}, name="g"
    )
    ir.save(ir.Model(graph, ir_version=10), path)


def build_file(pipelines: str, goals: str = "") -> str:
    """Return an `irc.toml` for `model.onnx` and `data.npz`, which times and checks nothing."""
    return f"""
[models.mlp]
source = "model.onnx"
[data.all]
evaluate = "data.npz"
[pipelines]
{pipelines}
[targets]
avx2 = "ort-cpu:isa=avx2"
{goals}[measuring]
bench = "none"
effort = "quick"
check = false
"""


def change(old: str, new: str, file: str = "irc.toml") -> None:
    """Replace a text that a file of the working folder holds."""
    text = Path(file).read_text(encoding="utf-8")
    assert old in text
    Path(file).write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture(autouse=True)
def _cheap(cheap_jobs: None) -> None:
    """Whole commands run here: what they start in processes of their own is not the point."""
