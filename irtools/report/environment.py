"""Machine and software that figures were measured with."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from irtools import __version__
from irtools.target.isa import Isa

__all__ = ["Machine", "cpu_quota", "machine", "versions"]

_PACKAGES = (
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "nncf",
    "torch",
    "transformers",
)


@dataclass(frozen=True)
class Machine:
    """What ran the measurements.

    Attributes:
        cpu: Model name of the CPU.
        isa: Its instruction set, as far as passes care.
        cores: CPUs that the process may run on.
        quota: CPUs that its container grants, in CPU seconds per second; None: no limit.
        system: Operating system and release.
    """

    cpu: str
    isa: str
    cores: int
    quota: float | None
    system: str


def versions() -> Mapping[str, str]:
    """Return the versions of irtools, Python and every library that can change a result."""
    found = {"irtools": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> Machine:
    """Describe this machine."""
    return Machine(
        cpu=_cpu_name(),
        isa=Isa.detect().value,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _cores(),
        quota=cpu_quota(),
        system=f"{platform.system()} {platform.release()}",
    )


def cpu_quota() -> float | None:
    """Return the CPU quota of the control group (version 2, then 1), or None without one."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else float(quota) / float(period)
    except (OSError, ValueError):
        pass
    try:
        folder = Path("/sys/fs/cgroup/cpu")
        granted = float((folder / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        period_us = float((folder / "cpu.cfs_period_us").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return granted / period_us if granted > 0 and math.isfinite(period_us) else None


def _cores() -> int:
    return os.cpu_count() or 1


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()
