"""Every example runs, as its own docstring says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

_EXAMPLES = Path(__file__).parents[2] / "examples"
_BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a classifier, the same with one outlier, and labelled data."""
    path = tmp_path_factory.mktemp("work")
    rng = np.random.default_rng(0)
    first = rng.standard_normal((64, 256)).astype(np.float32)
    second = rng.standard_normal((256, 8)).astype(np.float32) / 16
    _save(first, second, path / "model.onnx")
    spoilt = first.copy()
    spoilt[0, 0] = 40.0
    _save(spoilt, second, path / "outlier.onnx")
    data = rng.standard_normal((5000, 64)).astype(np.float32)
    logits = np.maximum(data @ first, 0) @ second
    best = np.sort(logits, axis=-1)
    # Samples near a border would test the luck of rounding.
    clear = np.argsort(best[:, -2] - best[:, -1])[:960]
    np.savez(path / "test.npz", x=data[clear], labels=logits[clear].argmax(axis=-1))
    np.savez(path / "calib.npz", x=data[:32])
    return path


def _save(first: np.ndarray, second: np.ndarray, path: Path) -> None:
    x = ir.val("x", ir.DataType.FLOAT, ir.Shape(["batch", 64]))
    values = {
        name: ir.val(name, const_value=ir.tensor(array, name=name))
        for name, array in (("first", first), ("second", second))
    }
    hidden = ir.node("MatMul", [x, values["first"]])
    active = ir.node("Relu", hidden.outputs)
    out = ir.node("MatMul", [active.outputs[0], values["second"]])
    logits = out.outputs[0]
    logits.name, logits.type = "logits", ir.TensorType(ir.DataType.FLOAT)
    logits.shape = ir.Shape(["batch", 8])
    nodes = [hidden, active, out]
    graph = ir.Graph([x], [logits], nodes=nodes, initializers=[*values.values()])
    graph.opset_imports[""] = 20
    ir.save(ir.Model(graph, ir_version=10), path)


def _run(folder: Path, *command: str, env: dict[str, str] | None = None) -> str:
    path = f"{_BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path, **(env or {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_compose_pipeline(folder: Path) -> None:
    out = _run(
        folder, sys.executable, str(_EXAMPLES / "compose_pipeline.py"), "model.onnx", "small.onnx"
    )
    assert "pipeline: cleanup,fuse,int8:mode=dynamic" in out
    assert (folder / "small.onnx").stat().st_size < (folder / "model.onnx").stat().st_size


def test_ci_gate(folder: Path) -> None:
    gate = str(_EXAMPLES / "ci_gate.sh")
    out = _run(folder, "sh", gate, "model.onnx", "calib.npz", "test.npz", "out")
    assert "x smaller, accuracy" in out
    assert (folder / "out/report.json").is_file()


def _install(name: str, site: Path, source: Path) -> dict[str, str]:
    """Return an environment in which the package of an example is installed."""
    for file in (_EXAMPLES / name).iterdir():
        if file.is_file():
            (source / file.name).write_bytes(file.read_bytes())
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run(
        [*command, "--no-build-isolation", "--target", str(site), str(source)],
        check=True,
        timeout=300,
    )
    return {"PYTHONPATH": str(site)}


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment with the pass of the examples."""
    return _install("custom_pass", tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("src"))


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment with the target of the examples."""
    return _install(
        "custom_target", tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("src")
    )


def test_a_pass_of_ones_own_is_explained(folder: Path, plugin: dict[str, str]) -> None:
    out = _run(folder, "irc", "passes", "clip-weights", env=plugin)
    assert "sigmas" in out and "6.0" in out and "standard deviations" in out


def test_a_pass_of_ones_own_runs_by_name(folder: Path, plugin: dict[str, str]) -> None:
    out = _run(
        folder,
        *("irc", "optimize", "outlier.onnx", "--passes", "clip-weights:sigmas=5"),
        *("--no-bench", "-o", "clipped.onnx", "--force"),
        env=plugin,
    )
    assert "clip-weights:sigmas=5.0" in out
    found = {
        v.name: v.const_value for v in ir.load(folder / "clipped.onnx").graph.initializers.values()
    }
    assert found["first"].numpy().max() < 40


def test_a_pass_of_ones_own_keeps_to_the_contract(folder: Path, plugin: dict[str, str]) -> None:
    tests = str(_EXAMPLES / "custom_pass")
    out = _run(folder, "pytest", "-p", "no:cacheprovider", "-W", "error", tests, env=plugin)
    assert "6 passed" in out


def test_a_pass_of_ones_own_is_planned(folder: Path, plugin: dict[str, str]) -> None:
    out = _run(folder, "irc", "plan", "outlier.onnx", "-p", "clip-weights", env=plugin)
    assert "clip 1 of 16384 weights" in out


def test_a_target_of_ones_own_keeps_to_the_contract(folder: Path, device: dict[str, str]) -> None:
    tests = str(_EXAMPLES / "custom_target")
    out = _run(folder, "pytest", "-p", "no:cacheprovider", "-W", "error", tests, env=device)
    assert "2 passed" in out


def test_a_target_of_ones_own_is_optimized_for_and_compiled_for(
    folder: Path, device: dict[str, str]
) -> None:
    wanted = ("--passes", "cleanup,int8", "--target", "reference", "--no-bench")
    out = _run(
        folder, "irc", "optimize", "model.onnx", *wanted, "-o", "here.onnx", "--force", env=device
    )
    assert "on reference" in out
    _run(folder, "irc", "compile", "here.onnx", "--target", "reference", "-o", "it/", env=device)
    assert [path.name for path in (folder / "it").iterdir()] == ["model.onnx"]
