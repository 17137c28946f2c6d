"""A few models of the corpus at the prompt: the headline command, without data."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from irtools.cli.main import run

from .outcomes import built
from .refused import operator_of_another_runtime

NAMES = (
    "text-reader-crnn",
    "voice-detector-with-rate",
    "boxes-after-suppression",
    "weights-as-constant-nodes",
)
EXACT_NAMES = ("scores-near-a-millionth", "doubles", "small-rules-for-large-constants")
"""Outputs of 1e-6, numbers of 64 bits, constants that are larger folded."""


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_headline_command(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _optimize(name, "prune,int8", capfd)
    assert Path("small.onnx").stat().st_size < 0.5 * Path("model.onnx").stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT_NAMES)
def test_exact_command(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _optimize(name, "cleanup,fuse", capfd)
    assert Path("small.onnx").stat().st_size <= Path("model.onnx").stat().st_size


def _optimize(name: str, passes: str, capfd: pytest.CaptureFixture[str]) -> None:
    onnx.save(built(name).proto, "model.onnx")
    code = run(["optimize", "model.onnx", "--passes", passes, "--no-bench", "-o", "small.onnx"])
    err = capfd.readouterr().err
    assert code == 0, err
    assert "Traceback" not in err and "irc: wrote small.onnx" in err


def test_refusal_is_one_line_and_leaves_no_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(operator_of_another_runtime().proto, "model.onnx")
    code = run(["optimize", "model.onnx", "--passes", "int4", "--no-bench", "-o", "small.onnx"])
    lines = [line for line in capfd.readouterr().err.splitlines() if "Swirl" in line]
    assert code == 4 and len(lines) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
