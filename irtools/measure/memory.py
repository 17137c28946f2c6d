"""Peak memory of this process, as a whole and part by part, and how much it may use."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from irtools.measure.control_groups import MEMBERSHIP, ROOT, groups, read

__all__ = ["forget_peak", "memory_limit", "peak_memory"]

_RESET_PEAK = "5"  # Linux 4.0, Documentation/filesystems/proc.rst.


def peak_memory() -> int:
    """Return the peak resident memory of this process in bytes; nothing is subtracted.

    Not `ru_maxrss`, where there is better: Linux hands that down from the parent, whose peak
    would hide the child's.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak() -> bool:
    """Let `peak_memory` start again from what is resident now; False where the system cannot."""
    try:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return False
    return True


def memory_limit(root: Path = ROOT, membership: Path = MEMBERSHIP) -> int | None:
    """Return the bytes of memory that this process may use; None where that is unknown.

    What the machine has, or less where a control group says so. How much of it is free does not
    count, so that decisions by it do not depend on what else runs.

    Args:
        root: Where control groups are mounted.
        membership: File that names this process's groups.
    """
    return min([*_installed(), *_bounds(root, membership)], default=None)


def _installed() -> Iterator[int]:
    if {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= os.sysconf_names.keys():
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _bounds(root: Path, membership: Path) -> Iterator[int]:
    for version, folder in groups("memory", root, membership):
        name = "memory.max" if version == 2 else "memory.limit_in_bytes"
        bound = read(folder / name).strip()
        if bound.isdecimal():
            yield int(bound)
