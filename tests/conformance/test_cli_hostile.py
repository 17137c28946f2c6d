"""Every hostile or unusual file, through the command line.

A bad file ends `irc` with the code for bad models, files or limits and one line on stderr; a legal
one is optimized or, where a pass cannot handle it, refused as clearly. Nothing is left over, and
the input stays what it was.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from irtools.cli.main import run

from . import hostile

REFUSED = frozenset({3, 6, 7})
"""Bad model, file or disk, limit."""

ALLOWED = frozenset({0, 3, 4, 7})
"""Done; no data can be drawn for the signature; not supported by the target; a limit."""

SECONDS = 2.0
REPRESENTATIVE = 7
"""Every so many cases are in the default suite; all of them are in the slow one."""

LEGAL = [case for case in hostile.CASES if case.expectation == "accept"]
BAD = [case for case in hostile.CASES if case.expectation == "refuse"]

Call = Callable[..., tuple[int, str, str]]


def marked(cases: list[hostile.Case]) -> list[object]:
    return [
        pytest.param(c, id=c.name, marks=[pytest.mark.slow] * (index % REPRESENTATIVE > 0))
        for index, c in enumerate(cases)
    ]


@pytest.fixture
def irc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Run `irc` in this process, in an empty folder: exit code, stdout, stderr."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def call(*args: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run(args)
        captured = capfd.readouterr()
        for text in captured:
            assert "Traceback" not in text
            assert hostile.CANARY.decode() not in text
            assert "\x1b" not in text
        return code, captured.out, captured.err

    return call


def state(folder: Path) -> dict[str, str]:
    """What is in a folder: name to content or kind."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        found[str(path)] = str(stat.S_IFMT(mode))
        if stat.S_ISREG(mode) and os.access(path, os.R_OK) and path.stat().st_size < 1 << 24:
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.mark.parametrize("verb", ["optimize", "inspect"])
@pytest.mark.parametrize("case", marked(BAD))
def test_bad_file_is_refused(case: hostile.Case, verb: str, irc: Call, tmp_path: Path) -> None:
    path = case.build(tmp_path / "in")
    before = state(tmp_path)
    more = ["--passes", "prune,int8", "--no-bench"] if verb == "optimize" else []
    started = time.process_time()
    code, out, err = irc(verb, str(path), *more)
    assert time.process_time() - started < SECONDS
    assert code in REFUSED
    assert err.startswith("irc: ") and err.count("\n") == 1 and out == ""
    # On the command line a folder may be a checkpoint, so other words are in place.
    assert (case.needle if case.name != "is_a_directory" else "is not a model") in err
    assert state(tmp_path) == before


@pytest.mark.parametrize("case", marked(LEGAL))
def test_legal_file_is_inspected(case: hostile.Case, irc: Call, tmp_path: Path) -> None:
    path = case.build(tmp_path / "in")
    before = state(tmp_path)
    code, out, err = irc("inspect", str(path))
    assert code == 0, err
    assert out and state(tmp_path) == before


@pytest.mark.parametrize("case", marked(LEGAL))
def test_legal_file_is_optimized_or_declined(case: hostile.Case, irc: Call, tmp_path: Path) -> None:
    path = case.build(tmp_path / "in")
    before = state(tmp_path)
    code, _, err = irc("optimize", str(path), "--passes", "prune,int8", "--no-bench")
    assert code in ALLOWED, err
    after = state(tmp_path)
    assert {name: after[name] for name in before} == before
    if code:
        assert err.splitlines()[-1].startswith("irc: ")
        assert after == before
    else:
        written = [Path(name) for name in after if name not in before]
        assert any(file.name.endswith(".opt.onnx") for file in written)
        assert all(hostile.CANARY not in file.read_bytes() for file in written if file.is_file())
