from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from irtools.errors import FileError
from irtools.files import publish, staging_folder


def test_files_arrive_together_and_nothing_is_left(tmp_path: Path) -> None:
    with staging_folder(tmp_path / "out") as folder:
        (folder / "m.xml").write_text("graph")
        (folder / "m.bin").write_text("weights")
        assert list((tmp_path / "out").glob("m.*")) == []
        files = publish(folder, tmp_path / "out", "m.xml")
    assert files == (tmp_path / "out/m.xml", tmp_path / "out/m.bin")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["m.bin", "m.xml"]


def test_the_file_that_names_the_others_is_moved_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[str] = []
    real = Path.replace
    monkeypatch.setattr(Path, "replace", lambda a, b: (moved.append(a.name), real(a, b))[1])
    with staging_folder(tmp_path) as folder:
        for name in ("a.onnx", "b.data", "z.data"):
            (folder / name).write_text(name)
        publish(folder, tmp_path, "a.onnx")
    assert moved == ["b.data", "z.data", "a.onnx"]


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("old")
    with pytest.raises(ValueError, match="half way"), staging_folder(tmp_path) as folder:
        (folder / "m.onnx").write_text("new")
        raise ValueError("half way")
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_text() == "old"


def test_a_place_taken_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").mkdir()
    with pytest.raises(FileError, match="cannot write"), staging_folder(tmp_path) as folder:
        (folder / "m.onnx").write_text("new")
        publish(folder, tmp_path, "m.onnx")


_KILLED = """
import os, signal, sys
from pathlib import Path
from irtools.files import staging_folder
with staging_folder(Path(sys.argv[1])) as folder:
    (folder / "m.bin").write_bytes(bytes(1000))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    (tmp_path / "old.onnx").write_text("old")
    done = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".irtools-*"))) == 1
    with staging_folder(tmp_path):
        assert len(list(tmp_path.glob(".irtools-*"))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["old.onnx"]
