"""Peak memory of this process, as a whole and part by part."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["forget_peak", "peak_memory"]

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
