"""Outputs that are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from irtools.measure.cache import OutputCache, default_cache


def _entry(number: int = 0) -> dict[str, object]:
    return {"batches": [{"y": np.full((2, 3), number, np.float32)}]}


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    cache = OutputCache(tmp_path / "new")
    key = OutputCache.key(model="a", data="b")
    assert cache.get(key) is None
    assert cache.put(key, _entry(7)) is None
    found = cache.get(key)
    assert found is not None
    np.testing.assert_array_equal(found["batches"][0]["y"], np.full((2, 3), 7, np.float32))
    assert [path.suffix for path in cache.folder.iterdir()] == [".npz"]


def test_keys_follow_every_part() -> None:
    keys = {OutputCache.key(a=1, b=2), OutputCache.key(a=2, b=1), OutputCache.key(a=1, c=2)}
    assert len(keys) == 3
    assert OutputCache.key(a=1, b=2) == OutputCache.key(b=2, a=1)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", None])
def test_a_damaged_entry_is_none(tmp_path: Path, damage: bytes | None) -> None:
    cache = OutputCache(tmp_path)
    key = OutputCache.key(model="a")
    cache.put(key, _entry())
    [file] = tmp_path.iterdir()
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] if damage is None else damage)
    assert cache.get(key) is None
    assert cache.put(key, _entry(1)) is None and cache.get(key) is not None


def test_an_entry_under_another_name_is_none(tmp_path: Path) -> None:
    cache = OutputCache(tmp_path)
    first, second = OutputCache.key(model="a"), OutputCache.key(model="b")
    cache.put(first, _entry())
    [file] = tmp_path.iterdir()
    file.rename(tmp_path / file.name.replace(first, second))
    assert cache.get(second) is None


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    keys = [OutputCache.key(n=n) for n in range(5)]
    OutputCache(tmp_path).put(keys[0], _entry())
    [file] = tmp_path.iterdir()
    cache = OutputCache(tmp_path, limit=int(4.5 * file.stat().st_size))
    for age, key in enumerate(keys[1:4]):
        cache.put(key, _entry())
        os.utime(tmp_path / f"{key}.outputs.npz", (1000 + age, 1000 + age))
    os.utime(file, (1, 1))
    assert cache.get(keys[0]) is not None  # Used now.
    cache.put(keys[4], _entry())
    kept = [key for key in keys if cache.get(key) is not None]
    assert kept == [keys[0], keys[2], keys[3], keys[4]]


def test_a_large_entry_and_a_closed_folder_are_no_error(tmp_path: Path) -> None:
    small = OutputCache(tmp_path / "a", limit=100)
    assert small.put(OutputCache.key(a=1), _entry()) is None
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").touch()
    said = OutputCache(tmp_path / "file").put(OutputCache.key(a=1), _entry())
    assert said is not None and "not cached" in said


def test_the_usual_place_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/where")
    assert default_cache() == Path("/some/where/irtools")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache/irtools"
