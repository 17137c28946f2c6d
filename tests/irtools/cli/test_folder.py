"""A folder as output: the whole of it or nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from irtools.report.document import Report

_CALL = ("optimize", "model.onnx", "-p", "cleanup", "--no-bench", "--no-check", "-o", "out/")


def _listing(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_new_folder_appears_whole_or_not_at_all(
    irc: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(p.name for p in tmp_path.iterdir())

    def fail(self: Report) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Report, "to_json", fail)
        assert irc(*_CALL).code == 6
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert irc(*_CALL).code == 0
    assert set(_listing(tmp_path / "out")) == {"model.onnx", "report.html", "report.json"}
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o777 & ~umask


def test_an_old_folder_stays_as_it_was_when_the_new_one_fails(
    irc: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/model.onnx").write_text("old")
    (tmp_path / "out/notes.txt").write_text("mine")
    before = _listing(tmp_path / "out")

    def fail(self: Report) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Report, "to_json", fail)
        assert irc(*_CALL, "--force").code == 6
    assert _listing(tmp_path / "out") == before
    assert irc(*_CALL, "--force").code == 0
    after = _listing(tmp_path / "out")
    assert set(after) == {"model.onnx", "notes.txt", "report.html", "report.json"}
    assert after["notes.txt"] == b"mine" and after["model.onnx"] != b"old"


@pytest.mark.parametrize("verb", [_CALL, ("compile", "model.onnx", "-o", "out/")])
def test_a_forced_folder_gets_the_tokenizer_of_its_new_model(
    verb: tuple[str, ...], irc: Callable, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.json").write_text('{"of": "the source"}')
    (tmp_path / "out").mkdir()
    (tmp_path / "out/tokenizer.json").write_text('{"of": "another model"}')
    assert irc(*verb).code == 2
    assert irc(*verb, "--force").code == 0
    assert (tmp_path / "out/tokenizer.json").read_text() == '{"of": "the source"}'
