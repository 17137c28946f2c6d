"""Builds that are killed or run out of disk: nothing lost, nothing half-visible."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.builds.release import fault_of, read_release
from irtools.files import Store, files_below

_WARM = Path(__file__).with_name("warm.py")
_CONFIG = """
[models.tiny]
source = "model.onnx"
[pipelines]
clean = "{passes}"
[targets]
avx2 = "ort-cpu:isa=avx2"
[measuring]
bench = "none"
check = false
seed = {seed}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    x = ir.val("x", ir.DataType.FLOAT, ir.Shape(["batch", 64]))
    w = ir.val("w", const_value=ir.tensor(weight, name="w"))
    nodes = [ir.node("Identity", [x])]
    nodes.append(ir.node("MatMul", [nodes[0].outputs[0], w]))
    out = nodes[-1].outputs[0]
    out.name, out.type = "y", ir.TensorType(ir.DataType.FLOAT)
    out.shape = ir.Shape(["batch", 64])
    graph = ir.Graph([x], [out], nodes=nodes, initializers=[w], opset_imports={"": 20}, name="g")
    ir.save(ir.Model(graph, ir_version=10), tmp_path / "model.onnx")
    _configure(tmp_path, 0)
    return tmp_path


def _configure(project: Path, seed: int, passes: str = "cleanup") -> None:
    text = _CONFIG.format(seed=seed, passes=passes)
    (project / "irc.toml").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def warm() -> Iterator[subprocess.Popen[str]]:
    """The process that `warm.py` is, of which builds are forks."""
    with subprocess.Popen(
        [sys.executable, str(_WARM)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Numpy's library starts threads of its own when it is imported.
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.communicate()


@dataclass(frozen=True)
class Builder:
    """Runs `irc build` in a project."""

    project: Path
    warm: subprocess.Popen[str]

    def __call__(
        self, count: int = 1, *, after: float | None = None, limit: int | None = None
    ) -> list[tuple[int, str]]:
        """Run builds at the same time; return exit code and stderr of each.

        Args:
            after: Seconds until each is killed, if it has not ended; None: never.
            limit: Most bytes of a file that it writes; None: any.
        """
        assert self.warm.stdin is not None and self.warm.stdout is not None
        asked = {"folder": str(self.project), "count": count, "after": after, "limit": limit}
        self.warm.stdin.write(json.dumps(asked) + "\n")
        self.warm.stdin.flush()
        return [(code, err) for code, err in json.loads(self.warm.stdout.readline())]


@pytest.fixture
def build(project: Path, warm: subprocess.Popen[str]) -> Builder:
    return Builder(project, warm)


def _bytes(project: Path) -> dict[str, bytes]:
    """Return what a release holds, but for what was measured."""
    folder = project / "release"
    return {name: (folder / name).read_bytes() for name in files_below(folder) if "model" in name}


def _check(project: Path) -> None:
    """What can be seen is whole: the release, the lock, and every entry of the cache."""
    release = project / "release"
    if release.exists():
        assert fault_of(release, read_release(release)) is None
    if (project / "irc.lock").exists():
        json.loads((project / "irc.lock").read_text(encoding="utf-8"))
    told: list[str] = []
    Store(project / "cache" / "irtools", warn=told.append).check()
    assert not told


def _seconds(build: Builder, seed: int) -> float:
    """Return how long a build takes."""
    _configure(build.project, seed)
    started = time.monotonic()
    assert build()[0][0] == 0
    return time.monotonic() - started


def _kill_often(build: Builder, kills: int) -> int:
    """Kill builds at random moments; return how many had not ended by then."""
    project = build.project
    seconds = min(_seconds(build, seed) for seed in (1001, 1002))
    draw, killed = random.Random(0), 0
    for number in range(kills):
        # Another seed is another build, in the end with the same bytes.
        _configure(project, number + 1)
        [(code, _)] = build(after=draw.uniform(0.0, 1.05) * seconds)
        killed += code == -signal.SIGKILL
        assert code in (0, -signal.SIGKILL)
        _check(project)
        if number % 10 == 5:
            before = _bytes(project)
            assert build()[0][0] == 0
            assert _bytes(project) == before
    assert build()[0][0] == 0
    _check(project)
    # What the killed ones left is gone.
    assert not [name for name in project.iterdir() if name.name.startswith(".irtools")]
    return killed


def test_killed_builds_leave_whole_files(build: Builder) -> None:
    assert _kill_often(build, 6) > 0


@pytest.mark.slow
def test_two_hundred_kills(build: Builder) -> None:
    assert _kill_often(build, 200) > 100


def test_builds_at_the_same_time(build: Builder) -> None:
    done = build(2)
    assert [code for code, _ in done] == [0, 0], done
    _check(build.project)
    # One has made it, the other has waited for it.
    assert sum("built)" in err for _, err in done) == 1, done


def test_a_full_disk_is_one_line_and_leaves_the_old_release(build: Builder) -> None:
    project = build.project
    [(code, err)] = build(limit=4000)
    assert code == 6 and "Traceback" not in err
    assert err.strip().splitlines()[-1].startswith("irc: cannot write")
    assert not (project / "release").exists()
    assert build()[0][0] == 0
    before = _bytes(project)
    _configure(project, 1, "cleanup,int8")
    [(code, err)] = build(limit=4000)
    assert code == 6 and err.count("irc: cannot write") == 1
    assert _bytes(project) == before
    _check(project)
    assert not [name for name in project.iterdir() if name.name.startswith(".irtools")]
