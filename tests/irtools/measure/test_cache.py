"""Outputs that are kept between runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from irtools.measure.cache import OutputCache, default_cache


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    cache = OutputCache(tmp_path / "new")
    key = OutputCache.key(model="a", data="b")
    assert cache.get(key) is None
    assert cache.put(key, {"batches": [{"y": np.full((2, 3), 7, np.float32)}], "seconds": 0.5})
    found = cache.get(key)
    assert found is not None and found["seconds"] == 0.5
    np.testing.assert_array_equal(found["batches"][0]["y"], np.full((2, 3), 7, np.float32))


def test_a_damaged_entry_is_told_and_made_again(tmp_path: Path) -> None:
    told: list[str] = []
    cache = OutputCache(tmp_path, warn=told.append)
    key = OutputCache.key(model="a")
    cache.put(key, {"y": np.zeros(9)})
    [file] = tmp_path.rglob("arrays.npz")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert cache.get(key) is None
    assert "other bytes than were written" in told[0]
    assert cache.put(key, {"y": np.ones(9)}) and cache.get(key)["y"][0] == 1


def test_the_usual_place_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/where")
    assert default_cache() == Path("/some/where/irtools")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache/irtools"
