"""How many CPUs this process may really use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from irtools.measure.control_groups import MEMBERSHIP, ROOT, groups, read

__all__ = ["cpu_quota"]


def cpu_quota(root: Path = ROOT, membership: Path = MEMBERSHIP) -> int:
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
    for version, folder in groups("cpu", root, membership):
        if version == 2:
            quota, _, period = read(folder / "cpu.max").strip().partition(" ")
        else:
            quota = read(folder / "cpu.cfs_quota_us").strip()
            period = read(folder / "cpu.cfs_period_us").strip()
        if quota.isdecimal() and period.isdecimal():
            yield int(quota) / int(period)
