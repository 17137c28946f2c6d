"""The files for CI systems: their commands run here as there, without the service."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

_BUILDS = Path(__file__).parents[2] / "examples" / "builds"

pytestmark = pytest.mark.torch  # For its YAML reader.


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, data and the irc.toml of the examples, shortened."""
    path = tmp_path_factory.mktemp("project")
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((16, 8)).astype(np.float32)
    x = ir.val("x", ir.DataType.FLOAT, ir.Shape(["batch", 16]))
    w = ir.val("w", const_value=ir.tensor(weight, name="w"))
    node = ir.node("MatMul", [x, w])
    out = node.outputs[0]
    out.name, out.type = "logits", ir.TensorType(ir.DataType.FLOAT)
    out.shape = ir.Shape(["batch", 8])
    graph = ir.Graph([x], [out], nodes=[node], initializers=[w], opset_imports={"": 20}, name="g")
    ir.save(ir.Model(graph, ir_version=10), path / "model.onnx")
    data = rng.standard_normal((1000, 16)).astype(np.float32)
    np.savez(path / "test.npz", x=data, labels=(data @ weight).argmax(-1))
    np.savez(path / "calib.npz", x=data[:16])
    text = (_BUILDS / "irc.toml").read_text(encoding="utf-8")
    (path / "whole.toml").write_text(text, encoding="utf-8")
    short = text.replace('int8 = "O3"\n', "").replace('vnni = "ort-cpu:isa=vnni"\n', "")
    (path / "irc.toml").write_text(short + "check = false\n", encoding="utf-8")
    return path


def _yaml(name: str) -> Any:
    import yaml

    return yaml.safe_load((_BUILDS / name).read_text(encoding="utf-8"))


def _bash(project: Path, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        **variables,
    }
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_action(project: Path) -> None:
    action = _yaml("action.yml")
    defaults = {name: given["default"] for name, given in action["inputs"].items()}
    steps = {step["name"]: step for step in action["runs"]["steps"] if "run" in step}
    assert set(steps) == {"Install", "Build", "Verify"}

    def run(name: str, **inputs: str) -> subprocess.CompletedProcess[str]:
        step = steps[name]
        assert step["shell"] == "bash" and "${{" not in step["run"]
        values = {**defaults, **inputs}
        given = {
            key: value.replace("${{ inputs.", "").replace(" }}", "")
            for key, value in step["env"].items()
        }
        named = {key: values[name] for key, name in given.items()}
        return _bash(project, step["run"], GITHUB_STEP_SUMMARY="summary.md", **named)

    done = run("Build")
    assert done.returncode == 0, done.stderr
    assert "### irc build: passed" in (project / "summary.md").read_text(encoding="utf-8")
    assert run("Verify").returncode == 0
    shutil.copytree(project / "release", project / "old", dirs_exist_ok=True)
    done = run("Build", baseline="old")
    assert done.returncode == 0 and "nothing is worse than in old" in done.stderr
    assert (project / "irc-junit.xml").exists()
    assert run("Build", baseline="missing").returncode == 6


def test_the_gitlab_template(project: Path) -> None:
    template = _yaml("gitlab-ci.yml")
    job = template["irc-build"]
    variables = {**template["variables"], "XDG_CACHE_HOME": str(project / ".cache")}
    shutil.rmtree(project / "release", ignore_errors=True)
    done = _bash(project, "\n".join(job["script"]), **variables)
    assert done.returncode == 0, done.stderr
    assert (project / job["artifacts"]["reports"]["junit"]).exists()
    assert (project / "irc-build.md").exists() and (project / ".cache" / "irtools").is_dir()


def test_the_hook(project: Path) -> None:
    [repo] = _yaml("pre-commit-config.yaml")["repos"]
    [hook] = repo["hooks"]
    assert _bash(project, "irc build").returncode == 0
    assert _bash(project, hook["entry"]).returncode == 0
    path = project / "irc.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"O2"', '"O1"'), encoding="utf-8")
    done = _bash(project, hook["entry"])
    assert done.returncode == 5 and "has another pipeline" in done.stderr
    path.write_text(text, encoding="utf-8")


def test_the_container(project: Path) -> None:
    lines = (_BUILDS / "Dockerfile").read_text(encoding="utf-8").splitlines()
    steps = dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))
    assert set(steps) == {"FROM", "ARG", "RUN", "ENV", "VOLUME", "WORKDIR", "ENTRYPOINT", "CMD"}
    command = [*json.loads(steps["ENTRYPOINT"]), *json.loads(steps["CMD"])]
    name, _, value = steps["ENV"].partition("=")
    assert name == "XDG_CACHE_HOME" and value == steps["VOLUME"]
    assert _bash(project, " ".join(command)).returncode == 0


def test_the_build_file_is_one(project: Path) -> None:
    done = _bash(project, "irc build --config whole.toml --dry-run")
    assert done.returncode == 0, done.stderr
    assert "classifier/int8/avx2" in done.stderr
