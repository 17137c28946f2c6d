from __future__ import annotations

import os
from pathlib import Path

import pytest

from irtools.measure.memory import memory_limit

_GIB = 1 << 30


@pytest.fixture(autouse=True)
def sixteen_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"SC_PHYS_PAGES": 16 * _GIB // 4096, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)


@pytest.mark.parametrize(
    ("membership", "file", "bound", "expected"),
    [
        ("0::/job", "job/memory.max", f"{4 * _GIB}\n", 4 * _GIB),
        ("0::/job", "job/memory.max", "max\n", 16 * _GIB),
        ("0::/outer/inner", "outer/memory.max", f"{2 * _GIB}\n", 2 * _GIB),
        ("0::/docker/0123", "memory.max", f"{_GIB}\n", _GIB),
        ("4:memory:/job", "memory/job/memory.limit_in_bytes", f"{3 * _GIB}\n", 3 * _GIB),
        ("4:memory:/job", "memory/job/memory.limit_in_bytes", f"{1 << 63}\n", 16 * _GIB),
        ("4:cpu:/job", "cpu/job/memory.limit_in_bytes", f"{_GIB}\n", 16 * _GIB),
    ],
)
def test_what_the_machine_has_or_a_group_allows(
    tmp_path: Path, membership: str, file: str, bound: str, expected: int
) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(bound)
    (tmp_path / "self").write_text(f"{membership}\n")
    assert memory_limit(tmp_path, tmp_path / "self") == expected


def test_no_groups_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory_limit(tmp_path, tmp_path / "self") == 16 * _GIB
    monkeypatch.setattr(os, "sysconf_names", {})
    assert memory_limit(tmp_path, tmp_path / "self") is None
