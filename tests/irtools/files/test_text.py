"""Texts are written whole or not at all."""

from __future__ import annotations

import math
import os
import threading
from pathlib import Path

import pytest

from irtools.errors import FileError
from irtools.files import json_text, write_text


def test_the_old_text_stays_where_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "r.json"
    write_text(place, "old")

    def full(path: Path, text: str, encoding: str) -> int:
        path.write_bytes(text[:1].encode())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(FileError, match=r"cannot write .*r\.json: No space left on device"):
        write_text(place, "new")
    assert place.read_text() == "old" and [*tmp_path.iterdir()] == [place]


def test_links_are_followed_and_pipes_written_to(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_text(tmp_path / "link", "a")
    write_text(tmp_path / "link", "b")
    assert (tmp_path / "file").read_text() == "b" and (tmp_path / "link").is_symlink()
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "through")
    reader.join()
    assert read == ["through"]


@pytest.mark.parametrize("name", ["none/r.json", "."])
def test_what_cannot_be_written_is_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot write"):
        write_text(tmp_path / name, "text")
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_json_does_not_know_are_asked_for() -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_text({"a": math.inf})
    assert json_text({"a": math.inf}, any_number=True) == '{\n "a": Infinity\n}\n'
