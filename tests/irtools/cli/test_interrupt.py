"""Ctrl-C and SIGTERM, wherever they meet `irc optimize`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

# What hangs here hangs for ever; 0.1 to 0.3 s on an idle machine.
_PATIENCE_SECONDS = 30

# `irc` whose clean-up does something that never ends.
_HANGING = """
import sys
from pathlib import Path
from irtools.cli.main import main
from irtools.measure.sandbox import run_isolated
from irtools.passes.cleanup.cleanup import Cleanup

def hang(self, model, ctx):
    pipe = Path("pipe").absolute()
    {hang}

Cleanup.run = hang
main()
"""
_PLACES = {
    "pass": "pipe.read_bytes()",
    "child": "run_isolated(Path.read_bytes, pipe)",
    "grandchild": "run_isolated(__import__('subprocess').run, ['cat', str(pipe)])",
}
_SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.fixture
def folder(irc: Callable, tmp_path: Path) -> Path:
    """A folder with a model, an old output and a scratch folder for temporary files."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "old.onnx").write_text("old")
    return tmp_path


def _start(folder: Path, python: list[str], *options: str) -> subprocess.Popen[str]:
    call = ["optimize", "model.onnx", "--passes", "cleanup,int8", "-o", "old.onnx", "--force"]
    return subprocess.Popen(
        [sys.executable, *python, *call, *options],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder / "scratch")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _check_stopped(folder: Path, process: subprocess.Popen[str], code: int) -> None:
    _, err = process.communicate(timeout=_PATIENCE_SECONDS)
    assert process.returncode == code
    last = err.splitlines()[-1]
    assert last.startswith("irc: stopped") and "Traceback" not in err
    assert (folder / "old.onnx").read_text() == "old"
    assert not [p.name for p in folder.iterdir() if p.name.startswith(".")]
    assert list((folder / "scratch").iterdir()) == []
    assert _left_behind(folder) == []


def _left_behind(folder: Path) -> list[str]:
    """Return the command lines of living processes that were started for this test."""
    mark = f"TMPDIR={folder / 'scratch'}\0".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # It ended meanwhile, or is not ours.
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
@pytest.mark.parametrize(("number", "code"), _SIGNALS, ids=["ctrl-c", "sigterm"])
@pytest.mark.parametrize("place", _PLACES)
def test_in_a_pass_and_in_what_it_started(
    folder: Path, place: str, number: signal.Signals, code: int
) -> None:
    os.mkfifo(folder / "pipe")
    script = _HANGING.format(hang=_PLACES[place])
    process = _start(folder, ["-c", script], "--no-bench", "--no-check")
    # Opens as soon as a process reads: from here on it hangs where it should.
    with (folder / "pipe").open("wb"):
        process.send_signal(number)
        _check_stopped(folder, process, code)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
@pytest.mark.parametrize(("number", "code"), _SIGNALS, ids=["ctrl-c", "sigterm"])
@pytest.mark.parametrize("step", ["evaluating", "benchmark"])
def test_in_steps_of_a_real_run(folder: Path, step: str, number: signal.Signals, code: int) -> None:
    process = _start(folder, ["-m", "irtools.cli.main"])
    assert process.stderr is not None
    assert any(step in line for line in process.stderr)
    process.send_signal(number)
    _check_stopped(folder, process, code)


@pytest.mark.parametrize("place", ["environment", "option"])
def test_the_next_start_removes_what_a_killed_run_left(
    folder: Path, irc: Callable, place: str
) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "room").mkdir()
    options = ["--work-dir", str(folder / "room")] if place == "option" else []
    script = _HANGING.format(hang="pipe.read_bytes()")
    process = _start(folder, ["-c", script], "--no-bench", "--no-check", *options)
    # Opens as soon as the pass reads.
    with (folder / "pipe").open("wb"):
        process.kill()
        process.communicate(timeout=_PATIENCE_SECONDS)
    used, other = (folder / "room", folder / "scratch")[:: 1 if options else -1]
    assert len(list(used.iterdir())) == 1 and list(other.iterdir()) == []

    call = [sys.executable, "-m", "irtools.cli.main", "optimize", "model.onnx", "--passes"]
    call += ["cleanup", "--no-bench", "--no-check", *options]
    environment = {**os.environ, "TMPDIR": str(folder / "scratch")}
    subprocess.run(call, cwd=folder, env=environment, check=True, capture_output=True)
    assert list(used.iterdir()) == []


def test_the_place_must_be_a_folder(irc: Callable, tmp_path: Path) -> None:
    found = irc("optimize", "model.onnx", "-p", "cleanup", "--work-dir", "nowhere")
    assert found.code == 2 and "nowhere is not a folder" in found.err
    assert found.err.count("\n") == 1 and not (tmp_path / "model.opt.onnx").exists()


def test_the_place_is_forgotten_after_the_verb(irc: Callable, tmp_path: Path) -> None:
    before = os.environ.get("TMPDIR"), tempfile.gettempdir()
    found = irc("optimize", "model.onnx", "-p", "cleanup", "--no-bench", "--work-dir", ".")
    assert found.code == 0
    assert (os.environ.get("TMPDIR"), tempfile.gettempdir()) == before
