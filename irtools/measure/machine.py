"""Machine and software that figures were measured with."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from irtools.files import files_below
from irtools.measure.cpu import cpu_quota
from irtools.targets import Isa
from irtools.version import __version__

__all__ = ["Machine", "code_digest", "machine", "versions"]

_PACKAGES = (
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "torch",
    "transformers",
)

_OWN = ("irtools", "irtools.passes", "irtools.frontends", "irtools.backends")


@dataclass(frozen=True)
class Machine:
    """What ran the measurements.

    Attributes:
        cpu: Model name of the CPU.
        isa: Its instruction set, as far as passes care.
        cores: CPUs that the machine has.
        quota: CPUs that this process may really use.
        system: Operating system and release.
    """

    cpu: str
    isa: str
    cores: int
    quota: int
    system: str


def versions() -> Mapping[str, str]:
    """Return the versions of irtools, Python and every library that can change a result."""
    found = {"irtools": __version__, "python": platform.python_version()}
    installed = ((package, _installed(package)) for package in _PACKAGES)
    return {**found, **{package: known for package, known in installed if known is not None}}


@functools.cache
def _installed(package: str) -> str | None:
    """Return the version of a package; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@functools.cache
def code_digest() -> str:
    """Return the SHA-256 of irtools' own files: while they are worked on, the version stays."""
    digest = hashlib.sha256()
    for package in _OWN:
        spec = importlib.util.find_spec(package)
        for folder in () if spec is None else spec.submodule_search_locations or ():
            names = [name for name in files_below(Path(folder)) if name.endswith(".py")]
            for name in names:
                digest.update(f"{package}/{name}\0".encode())
                digest.update(hashlib.sha256((Path(folder) / name).read_bytes()).digest())
    return digest.hexdigest()


def machine() -> Machine:
    """Describe this machine."""
    return Machine(
        cpu=_cpu_name(),
        isa=Isa.detect().value,
        cores=os.cpu_count() or 1,
        quota=cpu_quota(),
        system=f"{platform.system()} {platform.release()}",
    )


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
