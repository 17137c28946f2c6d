"""Nothing is sent anywhere: whole runs in a process that may not touch the network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest

_OFFLINE = Path(__file__).with_name("offline.py")
_FAST = ("--batch", "1", "--seq", "8")


def _run(folder: Path, module: str, *arguments: str) -> tuple[int, str, str]:
    """Run a module offline; return its exit code, what it wrote and which attempts it made."""
    log = folder / "attempts"
    done = subprocess.run(
        [sys.executable, str(_OFFLINE), str(log), module, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    attempts = log.read_text(encoding="utf-8") if log.exists() else ""
    return done.returncode, done.stdout + done.stderr, attempts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model."""
    weights = ",".join(str((7 * i) % 11 - 5) for i in range(64 * 64))
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
        g (float[batch, 64] x) => (float[batch, 64] y)
        <float[64, 64] w = {{{weights}}}> {{ h = MatMul(x, w)
        y = Relu(h) }}"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "model.onnx")
    return tmp_path


@pytest.mark.parametrize(
    "call",
    [
        ("optimize", "model.onnx", "--passes", "int8", "--no-bench"),
        ("compile", "model.onnx", "-o", "out/"),
        ("inspect", "model.onnx", "--profile", "--runs", "2"),
        ("targets",),
    ],
    ids=lambda call: call[0],
)
def test_a_run_asks_for_no_network(folder: Path, call: tuple[str, ...]) -> None:
    code, said, attempts = _run(folder, "irtools.cli.main", *call)
    assert code == 0, said
    assert attempts == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    "target", ["ort-cpu", pytest.param("openvino-cpu", marks=pytest.mark.openvino)]
)
def test_nor_does_one_with_a_benchmark(folder: Path, target: str) -> None:
    call = ("optimize", "model.onnx", "--passes", "O3", "-t", target, *_FAST)
    code, said, attempts = _run(folder, "irtools.cli.main", *call)
    assert code == 0, said
    assert attempts == ""


@pytest.mark.torch
@pytest.mark.slow
def test_nor_does_an_export(folder: Path) -> None:
    (folder / "net.py").write_text(
        "import torch\n\ndef make():\n    return torch.nn.Linear(4, 2)\n"
    )
    (folder / "run.py").write_text(
        "import numpy as np, sys\nsys.path.insert(0, '.')\n"
        "np.savez('x.npz', input=np.ones((2, 4), np.float32))\n"
        "from irtools.cli.main import run\n"
        "sys.exit(run(['export', 'net:make', '--example', 'x.npz', '-o', 'net.onnx']))\n"
    )
    code, said, attempts = _run(folder, "run.py")
    assert code == 0, said
    assert attempts == "" and (folder / "net.onnx").exists()


def test_a_look_up_in_python_is_seen(folder: Path) -> None:
    (folder / "guilty.py").write_text("import socket\nsocket.getaddrinfo('localhost', 80)\n")
    code, said, attempts = _run(folder, "guilty.py")
    assert code == 1 and "the network is cut off" in said
    assert attempts.startswith("socket.getaddrinfo ('localhost'")


def test_a_look_up_in_a_child_is_seen(folder: Path) -> None:
    (folder / "guilty.py").write_text("import socket\nsocket.getaddrinfo('localhost', 80)\n")
    (folder / "parent.py").write_text(
        "import subprocess, sys\nsubprocess.run([sys.executable, '-P', 'guilty.py'])\n"
    )
    _, _, attempts = _run(folder, "parent.py")
    assert attempts.startswith("socket.getaddrinfo ('localhost'")


@pytest.mark.parametrize("family", [2, 10])
def test_a_socket_of_native_code_ends_the_process(folder: Path, family: int) -> None:
    (folder / "guilty.py").write_text(
        "import ctypes\nlibc = ctypes.CDLL(None)\nassert libc.socket(1, 1, 0) >= 0\n"
        f"print('asked', flush=True)\nlibc.socket({family}, 1, 0)\nprint('survived')\n"
    )
    code, said, _ = _run(folder, "guilty.py")
    assert code == -31 and said == "asked\n"
