"""Temporary folders go with their process, and at the latest with the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from irtools.files import remove_abandoned, scratch, scratch_folder

_HOLD = """
import sys
from pathlib import Path
from irtools.files import scratch_folder
with scratch_folder("held", Path(sys.argv[1])) as folder:
    (folder / "weights.bin").write_bytes(bytes(1000))
    print(folder, flush=True)
    sys.stdin.read()
"""


def _holder(place: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a process that holds a folder in `place`."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def _end(process: subprocess.Popen[str], number: signal.Signals | None) -> None:
    if number is not None:
        process.send_signal(number)
    process.communicate(timeout=30)


@pytest.fixture(autouse=True)
def _each_start_sweeps() -> None:
    scratch._sweep_once.cache_clear()


def test_a_folder_goes_with_its_block(tmp_path: Path) -> None:
    with scratch_folder("some", tmp_path) as folder:
        assert list(folder.iterdir()) == []
        assert folder.is_relative_to(tmp_path) and "irc-some-" in str(folder)
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_goes_with_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), scratch_folder("some", tmp_path):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_the_next_start_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    dead, left = _holder(tmp_path)
    living, kept = _holder(tmp_path)
    _end(dead, signal.SIGKILL)
    assert (left / "weights.bin").exists()
    with scratch_folder("next", tmp_path):
        assert not left.parent.exists()
        assert (kept / "weights.bin").exists()
    _end(living, None)
    assert list(tmp_path.iterdir()) == []


def test_a_removal_that_was_interrupted_is_finished_later(tmp_path: Path) -> None:
    dead, left = _holder(tmp_path)
    _end(dead, signal.SIGKILL)
    (left / "weights.bin").unlink()
    left.rmdir()
    assert remove_abandoned(tmp_path) == (left.parent,)


def test_folders_of_other_users_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead, left = _holder(tmp_path)
    _end(dead, signal.SIGKILL)
    monkeypatch.setattr(scratch.os, "geteuid", lambda: os.getuid() + 1)
    assert remove_abandoned(tmp_path) == () and left.exists()
    monkeypatch.undo()
    assert remove_abandoned(tmp_path) == (left.parent,)


@pytest.mark.parametrize("name", ["irc-crash-1", "irc-reproducer-1", "other"])
def test_folders_that_are_meant_to_stay_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "crash.json").write_text("{}")
    assert remove_abandoned(tmp_path) == () and (tmp_path / name / "crash.json").exists()


def test_links_are_not_followed(tmp_path: Path) -> None:
    dead, left = _holder(tmp_path)
    _end(dead, signal.SIGKILL)
    elsewhere = tmp_path / "precious"
    left.parent.rename(elsewhere)
    (tmp_path / "irc-link").symlink_to(elsewhere)
    assert remove_abandoned(tmp_path) == () and (elsewhere / "files" / "weights.bin").exists()


def test_a_place_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    assert remove_abandoned(tmp_path / "none") == ()
    with pytest.raises(FileNotFoundError), scratch_folder("some", tmp_path / "none"):
        pass


_MADE_ELSEWHERE = {
    "irtools/files/scratch.py": "makes them",
    "irtools/passmanager/workspace.py": "inside the folder of the run",
    "irtools/instruments/reproducer.py": "is kept for the user",
    "irtools/cli/crash.py": "is kept for the user",
    "irtools/cli/options.py": "sets the place",
    "irtools/measure/child.py": "a file without a name",
    "irtools/executors/local.py": "a file without a name",
    "irtools/measure/kit/runner.py": "runs where irtools is not installed",
}


def test_there_is_one_room_for_temporary_folders() -> None:
    root = Path(__file__).resolve().parents[3]
    found = {
        str(path.relative_to(root))
        for room in ("irtools", "passes", "frontends", "backends")
        for path in (root / room).rglob("*.py")
        if "tempfile" in path.read_text(encoding="utf-8")
    }
    assert found == set(_MADE_ELSEWHERE)
