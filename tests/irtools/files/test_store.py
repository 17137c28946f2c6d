"""Entries of the store: whole or not there, whatever writes, reads, damages and trims them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from irtools.files import Store


def _write(text: str, folder: Path) -> None:
    (folder / "a.txt").write_text(text)
    (folder / "inner").mkdir()
    (folder / "inner" / "b.txt").write_text(text * 2)


def _text(store: Store, key: str) -> str | None:
    with store.open("build", key) as entry:
        if entry is None:
            return None
        assert entry.files == ("a.txt", "inner/b.txt")
        text = (entry.folder / "a.txt").read_text()
        assert (entry.folder / "inner" / "b.txt").read_text() == text * 2
        return text


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "new")
    key = Store.key(model="a", data="b")
    assert _text(store, key) is None and not (tmp_path / "new").exists()
    assert store.put("build", key, partial(_write, "hello"))
    assert _text(store, key) == "hello"
    assert [(s.kind, s.entries, s.bytes > 15) for s in store.sizes()] == [("build", 1, True)]
    # Nothing temporary is left.
    assert [path.name for path in store.root.iterdir()] == ["build"]


def test_keys_follow_every_part() -> None:
    keys = {Store.key(a=1, b=2), Store.key(a=2, b=1), Store.key(a=1, c=2)}
    assert len(keys) == 3
    assert Store.key(a=1, b=2) == Store.key(b=2, a=1)


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda f: (f / "a.txt").write_text("hellO"), "a.txt has other bytes"),
        (lambda f: (f / "a.txt").write_text("hell"), "a.txt has 4 of 5 bytes"),
        (lambda f: (f / "inner" / "b.txt").unlink(), "b.txt is missing"),
        (lambda f: (f / "entry.json").write_text("{"), "entry.json cannot be read"),
        (lambda f: (f / "entry.json").write_text("[]"), "entry.json cannot be read"),
        (lambda f: (f / "entry.json").unlink(), ""),
    ],
)
def test_a_damaged_entry_is_told_and_made_again(
    tmp_path: Path, damage: Callable[[Path], object], fault: str
) -> None:
    told: list[str] = []
    store, key = Store(tmp_path, warn=told.append), Store.key(a=1)
    store.put("build", key, partial(_write, "hello"))
    [listed] = tmp_path.rglob("entry.json")
    damage(listed.parent)
    assert _text(store, key) is None
    assert fault in "".join(told) and len(told) == (fault != "")
    assert store.put("build", key, partial(_write, "again")) and _text(store, key) == "again"


def test_an_entry_under_another_name_is_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = Store.key(model="a"), Store.key(model="b")
    store.put("build", first, partial(_write, "hello"))
    [listed] = tmp_path.rglob("entry.json")
    place = store.root / "build" / second[:2] / second
    place.parent.mkdir(exist_ok=True)
    listed.parent.rename(place)
    assert _text(store, second) is None


def test_the_least_recently_used_go_first_and_those_in_use_stay(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keys = [Store.key(n=n) for n in range(4)]
    for age, key in enumerate(keys):
        store.put("build", key, partial(_write, "x" * 100))
        os.utime(store.root / "build" / key[:2] / key / "entry.json", (1000 + age, 1000 + age))
    assert _text(store, keys[0]) is not None  # Used now.
    size = store.sizes()[0].bytes // 4
    with store.open("build", keys[1]) as entry:
        assert entry is not None
        # It is now the most recently used one, and no longer so in a moment.
        os.utime(entry.folder / "entry.json", (1, 1))
        assert store.trim(2 * size) == 2 * size
        assert (entry.folder / "a.txt").exists()
    assert [_text(store, key) is not None for key in keys] == [True, True, False, False]
    assert store.trim(0) == 2 * size and store.sizes() == ()


def test_a_large_entry_and_a_closed_folder_are_no_error(tmp_path: Path) -> None:
    told: list[str] = []
    assert not Store(tmp_path / "a", limit=10).put("build", "k", partial(_write, "long enough"))
    (tmp_path / "file").touch()
    store = Store(tmp_path / "file", warn=told.append)
    assert not store.put("build", "k", partial(_write, "x"), "model a")
    assert told == [f"model a was not cached: {tmp_path / 'file'}: Not a directory"]
    with store.making("k"):
        pass


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "a").write_text("part")
        raise OSError(28, "No space left on device")

    told: list[str] = []
    store = Store(tmp_path, warn=told.append)
    assert not store.put("build", "k", fill)
    assert told == [f"build was not cached: {tmp_path}: No space left on device"]
    assert list(store.root.rglob("*")) == [store.root / "build", store.root / "build" / "k"]


def test_stores_of_other_versions_are_named(tmp_path: Path) -> None:
    (tmp_path / "store-0").mkdir()
    assert Store(tmp_path).others() == (tmp_path / "store-0",)


def _put_many(folder: str) -> None:
    store = Store(Path(folder))
    for number in range(100_000):
        key = Store.key(n=number % 50)
        if not store.put("build", key, partial(_write, str(number % 50) * 1000)):
            raise AssertionError("not kept")
        store.trim(100_000)


def test_killed_writers_leave_whole_entries_only(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    for _ in range(2):
        writers = [context.Process(target=_put_many, args=(str(tmp_path),)) for _ in range(2)]
        for writer in writers:
            writer.start()
        store = Store(tmp_path)
        while not store.sizes():
            time.sleep(0.01)
        for writer in writers:
            assert writer.pid is not None
            os.kill(writer.pid, signal.SIGKILL)
            writer.join()
    told: list[str] = []
    store = Store(tmp_path, warn=told.append)
    for number in range(50):
        assert _text(store, Store.key(n=number)) in (None, str(number) * 1000)
    assert store.check() == 0 and not told
    store.put("build", Store.key(n="last"), partial(_write, "x"))
    assert not [p for p in store.root.iterdir() if p.name.startswith(".irtools")]


def _count(folder: str) -> None:
    store, path = Store(Path(folder) / "store"), Path(folder) / "count"
    for _ in range(50):
        with store.making("k"):
            path.write_text(str(int(path.read_text()) + 1))


def test_one_makes_it_and_the_other_waits(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_count, args=(str(tmp_path),)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (tmp_path / "count").read_text() == "100"
