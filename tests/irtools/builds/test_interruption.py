"""Builds that are killed or run out of disk: nothing lost, nothing half-visible."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.builds.release import fault_of, read_release
from irtools.files import Store, files_below

_IRC = [sys.executable, "-m", "irtools.cli.main"]
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


def _start(project: Path, **options: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(project / "cache")}
    return subprocess.Popen(
        [*_IRC, "build"],
        cwd=project,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def _finish(running: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = running.communicate()
    return running.returncode, err


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


def _kill_often(project: Path, kills: int) -> int:
    """Start builds and kill them at random moments; return how many had not ended by then."""
    started = time.monotonic()
    assert _finish(_start(project))[0] == 0
    seconds = time.monotonic() - started
    draw, killed = random.Random(0), 0
    for number in range(kills):
        # Another seed is another build, in the end with the same bytes.
        _configure(project, number + 1)
        running = _start(project)
        try:
            running.wait(draw.uniform(0.05, 1.05) * seconds)
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
            killed += 1
        _finish(running)
        _check(project)
        if number % 10 == 9:
            before = _bytes(project)
            assert _finish(_start(project))[0] == 0
            assert _bytes(project) == before
    assert _finish(_start(project))[0] == 0
    _check(project)
    # What the killed ones left is gone.
    assert not [name for name in project.iterdir() if name.name.startswith(".irtools")]
    return killed


def test_killed_builds_leave_whole_files(project: Path) -> None:
    assert _kill_often(project, 3) > 0


@pytest.mark.slow
def test_two_hundred_kills(project: Path) -> None:
    assert _kill_often(project, 200) > 100


def test_builds_at_the_same_time(project: Path) -> None:
    running = [_start(project) for _ in range(2)]
    done = [_finish(one) for one in running]
    assert [code for code, _ in done] == [0, 0], done
    _check(project)
    # One has made it, the other has waited for it.
    assert sum("built)" in err for _, err in done) == 1, done


def _limited(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_is_one_line_and_leaves_the_old_release(project: Path) -> None:
    code, err = _finish(_start(project, preexec_fn=_limited(4000)))
    assert code == 6 and "Traceback" not in err
    assert err.strip().splitlines()[-1].startswith("irc: cannot write")
    assert not (project / "release").exists()
    assert _finish(_start(project))[0] == 0
    before = _bytes(project)
    _configure(project, 1, "cleanup,int8")
    code, err = _finish(_start(project, preexec_fn=_limited(4000)))
    assert code == 6 and err.count("irc: cannot write") == 1
    assert _bytes(project) == before
    _check(project)
    assert not [name for name in project.iterdir() if name.name.startswith(".irtools")]
