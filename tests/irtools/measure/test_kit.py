"""Kits: packed here, run where numpy and onnxruntime are, read back and merged."""

from __future__ import annotations

import ast
import dataclasses
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from irtools.errors import DataError, FileError, LimitError, UnsupportedError, UsageError
from irtools.files import file_hash
from irtools.measure.base import BenchSettings
from irtools.measure.contest import Contender
from irtools.measure.kit import Host, KitTimes, pack_kit, parse_result, read_result, run_on, runner
from irtools.model import Model

_TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
m (float[batch, 4] x) => (float[batch, 4] y) <float[4] b = {{1.0, 2.0, 3.0, {last}}}> {{
  y = Add (x, b)
}}
"""
FEEDS = {"x": np.ones((2, 4), np.float32)}
SHAPES = {"batch=2": FEEDS, "turns": [FEEDS, {"x": np.zeros((3, 4), np.float32)}]}
SETTINGS = BenchSettings(rounds=3, block_seconds=0.0, threads=1)
_KIT = {
    "format": "irtools-kit-result",
    "version": 1,
    "kit": "k",
    "machine": {"name": "board", "cpu": "A76", "cores": 4, "system": "Linux", "threads": 4},
    "versions": {"onnxruntime": "1.20"},
    "models": [
        {"name": "a", "target": "ort-cpu", "sha256": "a" * 64, "files": []},
        {"name": "b", "target": "ort-cpu", "sha256": "b" * 64, "files": ["f" * 64]},
    ],
    "results": [
        {
            "name": name,
            "shape": "decode batch=2 past=8",
            "medians": [factor * 0.002, factor * 0.003, factor * 0.002],
            "p90": 0.003,
            "p99": 0.004,
            "mean": factor * 0.002,
            "runs": 9,
            "peak_bytes": 10,
            "load_seconds": 0.1,
            "first_seconds": 0.2,
        }
        for name, factor in (("a", 1.0), ("b", 0.5))
    ],
}


def _model(last: float = 4.0) -> Model:
    return Model(ir.from_onnx_text(_TEXT.format(last=last)))


@pytest.fixture
def kit(tmp_path: Path) -> tuple[Path, str]:
    source = tmp_path / "b.onnx"
    _model(5.0).save(source)
    contenders = {
        "a": Contender(_model(), "ort-cpu:isa=arm-dot"),
        "b": Contender(source, "ort-cpu:isa=avx2"),
    }
    place = tmp_path / "kit.zip"
    return place, pack_kit(place, contenders, SHAPES, SETTINGS, {"b": source})


def test_a_kit_is_run_and_read(kit: tuple[Path, str], tmp_path: Path) -> None:
    place, identity = kit
    done = subprocess.run(
        [sys.executable, str(place), "-o", str(tmp_path / "result.json")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "round 3 of 3" in done.stderr
    found = read_result(tmp_path / "result.json")
    assert found.kit == identity and found.machine.threads == 1 and found.versions["onnxruntime"]
    assert [(one.name, one.shape) for one in found.results] == [
        ("a", "batch=2"),
        ("b", "batch=2"),
        ("a", "turns"),
        ("b", "turns"),
    ]
    first, second = found.results[:2]
    assert len(first.block_medians_ms) == 3 and first.runs == 9 and first.peak_bytes > 0
    assert first.speedup is None and second.speedup is not None and second.speedup.value > 0
    assert [one.sha256 for one in found.models] == [
        _model().fingerprint(),
        _model(5.0).fingerprint(),
    ]
    assert [one.files for one in found.models] == [(), (file_hash(tmp_path / "b.onnx"),)]


def test_the_same_kit_has_the_same_bytes(kit: tuple[Path, str], tmp_path: Path) -> None:
    content = kit[0].read_bytes()
    again = pack_kit(
        tmp_path / "again.zip",
        {
            "a": Contender(_model(), "ort-cpu:isa=arm-dot"),
            "b": Contender(_model(5.0), "ort-cpu:isa=avx2"),
        },
        SHAPES,
        SETTINGS,
        {"b": tmp_path / "b.onnx"},
    )
    assert again == kit[1] and (tmp_path / "again.zip").read_bytes() == content


def test_the_runner_needs_numpy_and_onnxruntime_alone() -> None:
    tree = ast.parse(Path(runner.__file__).read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module).split(".")[0])
    assert names - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}
    # The oldest Python that the file is written for.
    ast.parse(Path(runner.__file__).read_text(encoding="utf-8"), feature_version=(3, 8))


def test_a_kit_that_was_changed_is_not_run(kit: tuple[Path, str], tmp_path: Path) -> None:
    with zipfile.ZipFile(kit[0]) as old, zipfile.ZipFile(tmp_path / "new.zip", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, content[:-1] if name == "models/1/model.onnx" else content)
    with pytest.raises(ValueError, match=r"models/1/model.onnx is not what was packed"):
        runner._unpack(tmp_path / "new.zip", tmp_path / "folder")
    (tmp_path / "new.zip").write_bytes(kit[0].read_bytes()[:300])
    with pytest.raises(ValueError, match="is damaged"):
        runner._unpack(tmp_path / "new.zip", tmp_path / "folder")


def test_what_a_kit_cannot_hold_is_told(tmp_path: Path) -> None:
    place = tmp_path / "kit.zip"
    with pytest.raises(UnsupportedError, match="onnxruntime alone, which does not run openvino"):
        pack_kit(place, {"a": Contender(_model(), "openvino-cpu")}, SHAPES, SETTINGS)
    odd = {"batch=1": {"x": np.ones((1, 4), ml_dtypes.bfloat16)}}
    with pytest.raises(UnsupportedError, match="input x is of type bfloat16"):
        pack_kit(place, {"a": Contender(_model(), "ort-cpu:isa=avx2")}, odd, SETTINGS)
    with pytest.raises(FileError, match="cannot write"):
        pack_kit(Path("/proc/kit.zip"), {}, {}, SETTINGS)
    assert not list(tmp_path.iterdir())


def test_models_take_turns() -> None:
    assert [runner._rotated(3, number) for number in range(4)] == [
        [0, 1, 2],
        [0, 2, 1],
        [2, 0, 1],
        [2, 1, 0],
    ]


def _parsed(**changes: Any) -> KitTimes:
    return parse_result(json.dumps({**_KIT, **changes}).encode(), "r.json")


def test_seconds_become_figures() -> None:
    first, second = _parsed().results
    assert (first.median_ms, first.phase, first.speedup) == (2.0, "decode", None)
    assert second.tokens_per_second == pytest.approx(2000) and second.speedup is not None
    assert second.speedup.low == pytest.approx(2) and second.speedup.is_significant


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "x"}, "not a document of format 'irtools-kit-result', but 'x'"),
        ({"version": 2}, "has version 2, expected 1"),
        ({"models": []}, "models and results differ"),
        ({"kit": 3}, "does not follow its format"),
        ({"results": [{**_KIT["results"][0], "medians": [1.0, 0.0]}]}, "differ"),  # type: ignore[index]
    ],
)
def test_what_is_no_result_is_told(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        _parsed(**changes)
    with pytest.raises(DataError, match="is not JSON"):
        parse_result(b"{", "r.json")
    with pytest.raises(FileError, match="cannot read"):
        read_result(Path("missing.json"))


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("ssh://pi", Host("pi")),
        ("ssh://me@pi.local:2222", Host("me@pi.local", 2222)),
        ("ssh://pi?python=/opt/a b/python", Host("pi", None, "/opt/a b/python")),
    ],
)
def test_addresses(text: str, host: Host) -> None:
    assert Host.parse(text) == host


@pytest.mark.parametrize(
    "text",
    [
        "pi",
        "http://pi",
        "ssh://",
        "ssh://-oProxyCommand=x",
        "ssh://me@-x",
        "ssh://pi/tmp",
        "ssh://pi:port",
        "ssh://pi?pyton=x",
        "ssh://pi;x",
    ],
)
def test_what_is_no_address_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="is not"):
        Host.parse(text)


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put a program called ssh first in PATH, which runs what it is asked to run here."""

    def make(script: str = 'exec sh -c "$*"') -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        program = folder / "ssh"
        log = folder / "log"
        program.write_text(
            f'#!/bin/sh\necho "$@" | head -1 > {log}\n'
            f'while [ "$1" != -- ]; do shift; done\nshift 2\n{script}\n'
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        monkeypatch.setenv("TMPDIR", str(tmp_path / "there"))
        (tmp_path / "there").mkdir(exist_ok=True)
        return log

    return make


def test_a_kit_is_run_over_ssh_and_leaves_nothing(
    kit: tuple[Path, str], tmp_path: Path, ssh: Callable[[str], Path]
) -> None:
    log = ssh('exec sh -c "$*"')
    # A stand-in for python that answers as the kit would: the kit itself runs in another test.
    python = tmp_path / "py thon"
    answer = json.dumps({**_KIT, "kit": kit[1]})
    python.write_text(f"#!/bin/sh\ncmp \"$1\" '{kit[0]}' && echo '{answer}' > \"$3\"\n")
    python.chmod(0o755)
    found = run_on(Host("me@pi", 2222, str(python)), *kit, 60.0)
    assert found == dataclasses.replace(_parsed(), kit=kit[1])
    assert log.read_text().startswith("-o BatchMode=yes -p 2222 -- me@pi exec sh -c")
    assert not list((tmp_path / "there").iterdir())
    with pytest.raises(DataError, match="the result of another kit"):
        run_on(Host("pi", None, str(python)), kit[0], "other", 60.0)
    with pytest.raises(UnsupportedError, match=r"pi did not run the kit: .*not found"):
        run_on(Host("pi", None, "/missing/python"), *kit, 60.0)


def test_a_machine_that_cannot_be_reached_is_told(
    kit: tuple[Path, str], ssh: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh("echo 'no route to host' >&2; exit 255")
    with pytest.raises(UnsupportedError, match="pi cannot be reached: no route to host"):
        run_on(Host("pi"), *kit, 60.0)
    ssh("exec sleep 60")
    with pytest.raises(LimitError, match=r"longer than the limit of 0\.1 s"):
        run_on(Host("pi"), *kit, 0.1)
    monkeypatch.setenv("PATH", "/missing")
    with pytest.raises(UnsupportedError, match="needs ssh"):
        run_on(Host("pi"), *kit, 60.0)
