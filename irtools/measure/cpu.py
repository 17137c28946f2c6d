"""How many CPUs this process may really use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["cpu_quota"]

_ROOT = Path("/sys/fs/cgroup")


def cpu_quota(root: Path = _ROOT, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Return the number of CPUs, at least 1: the smaller of affinity and cgroup quota.

    A quota of 1.5 CPUs counts as 1: a second thread would be throttled half of the time.

    Args:
        root: Where control groups are mounted.
        membership: File that names this process's groups.
    """
    return max(1, math.floor(min([_allowed_cpus(), *_quotas(root, membership)])))


def _allowed_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path, membership: Path) -> Iterator[float]:
    """Yield the quotas of this process's groups and of the groups around them."""
    for line in _read(membership).splitlines():
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            yield from _v2(root, group)
        elif "cpu" in controllers.split(","):
            yield from _v1(root / controllers, group)
            yield from _v1(root / "cpu", group)


def _v2(root: Path, group: str) -> Iterator[float]:
    for folder in _chain(root, group):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if quota.isdecimal() and period.strip().isdecimal():
            yield int(quota) / int(period)


def _v1(root: Path, group: str) -> Iterator[float]:
    for folder in _chain(root, group):
        quota = _read(folder / "cpu.cfs_quota_us").strip()
        period = _read(folder / "cpu.cfs_period_us").strip()
        if quota.isdecimal() and period.isdecimal():
            yield int(quota) / int(period)


def _chain(root: Path, group: str) -> Iterator[Path]:
    # Inside a container the group's own path is often not mounted, its root is.
    path = root / group.strip("/")
    while path != root:
        yield path
        path = path.parent
    yield root


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
