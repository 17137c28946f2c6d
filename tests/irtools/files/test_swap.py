"""A folder in the place of another one: the old or the new one, at any moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from irtools.errors import FileError
from irtools.files import folder_locked, replace_folder, restore_folder, swap


def _folder(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "name").write_text(text)
    return path


@pytest.mark.parametrize("exchange", [True, False])
def test_the_new_folder_takes_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(swap, "_renameat2", lambda: None)
    place = tmp_path / "release"
    replace_folder(_folder(tmp_path / "a", "first"), place)
    assert (place / "name").read_text() == "first" and not (tmp_path / "a").exists()
    replace_folder(_folder(tmp_path / "b", "second"), place)
    assert (place / "name").read_text() == "second"
    assert (tmp_path / "b" / "name").read_text() == "first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "release"]


def test_an_interrupted_replacement_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "_renameat2", lambda: None)
    place, new = _folder(tmp_path / "release", "old"), _folder(tmp_path / "new", "new")
    rename, calls = Path.rename, []

    def dying(path: Path, to: Path) -> Path:
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", dying)
    with pytest.raises(KeyboardInterrupt):
        replace_folder(new, place)
    monkeypatch.undo()
    assert not place.exists()
    restore_folder(place)
    assert (place / "name").read_text() == "old"
    restore_folder(place)


def test_a_folder_that_cannot_be_moved_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot replace folder"):
        replace_folder(tmp_path / "missing", tmp_path / "place")


def test_a_lock_on_a_folder_leaves_nothing(tmp_path: Path) -> None:
    with folder_locked(tmp_path):
        assert not list(tmp_path.iterdir())
    with folder_locked(tmp_path):
        pass
