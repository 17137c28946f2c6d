from __future__ import annotations

import os
from pathlib import Path

import pytest

from irtools.measure.cpu import cpu_quota

_MANY = set(range(16))


@pytest.fixture(autouse=True)
def sixteen_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: _MANY, raising=False)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", 16), ("200000 100000", 2), ("150000 100000", 1), ("50000 100000", 1)],
)
def test_cgroup_v2(tmp_path: Path, quota: str, expected: int) -> None:
    _write(tmp_path / "fs/job/cpu.max", quota + "\n")
    _write(tmp_path / "self", "0::/job\n")
    assert cpu_quota(tmp_path / "fs", tmp_path / "self") == expected


def test_a_quota_of_an_outer_group_counts(tmp_path: Path) -> None:
    _write(tmp_path / "fs/outer/cpu.max", "300000 100000\n")
    _write(tmp_path / "fs/outer/inner/cpu.max", "max 100000\n")
    _write(tmp_path / "self", "0::/outer/inner\n")
    assert cpu_quota(tmp_path / "fs", tmp_path / "self") == 3


def test_cgroup_v1(tmp_path: Path) -> None:
    _write(tmp_path / "fs/cpu,cpuacct/job/cpu.cfs_quota_us", "400000\n")
    _write(tmp_path / "fs/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n")
    _write(tmp_path / "self", "4:memory:/job\n3:cpu,cpuacct:/job\n")
    assert cpu_quota(tmp_path / "fs", tmp_path / "self") == 4


def test_a_container_sees_only_the_root_of_its_group(tmp_path: Path) -> None:
    _write(tmp_path / "fs/cpu.max", "200000 100000\n")
    _write(tmp_path / "self", "0::/docker/0123\n")
    assert cpu_quota(tmp_path / "fs", tmp_path / "self") == 2


def test_no_cgroups_at_all(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path, tmp_path / "self") == 16


def test_rubbish_is_ignored(tmp_path: Path) -> None:
    _write(tmp_path / "fs/cpu.max", "\n")
    _write(tmp_path / "self", "what\n0::/../x\n")
    assert cpu_quota(tmp_path / "fs", tmp_path / "self") == 16
