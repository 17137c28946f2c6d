"""What NVIDIA GPUs do, by the driver's own library (NVML, package nvidia-ml-py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["Gpus"]


class Gpus:
    """Load, memory and power of GPUs, and the memory of processes on them.

    GPUs, their driver or the package may be missing; then nothing is read, without an error.

    Args:
        nvml: The module `pynvml`, or what stands for it; None: it is looked for.

    Attributes:
        names: Of the GPUs; none where nothing can be read.
    """

    def __init__(self, nvml: Any = None) -> None:
        self._nvml = nvml if nvml is not None else _find_nvml()
        self._handles: list[Any] = []
        self.names: tuple[str, ...] = ()
        if self._nvml is None:
            return
        try:
            self._nvml.nvmlInit()
            count = self._nvml.nvmlDeviceGetCount()
            self._handles = [self._nvml.nvmlDeviceGetHandleByIndex(n) for n in range(count)]
            self.names = tuple(map(self._name, self._handles))
        except self._nvml.NVMLError:  # A package without a driver.
            self._handles = []

    def points(self) -> list[dict[str, Any]]:
        """Return of each GPU its name, load in percent, memory in bytes and power in watts.

        What a GPU does not say is None.
        """
        return [
            {
                "name": name,
                "load": self._ask("nvmlDeviceGetUtilizationRates", handle, "gpu"),
                "memory": self._ask("nvmlDeviceGetMemoryInfo", handle, "used"),
                "power": _watts(self._ask("nvmlDeviceGetPowerUsage", handle)),
            }
            for name, handle in zip(self.names, self._handles, strict=True)
        ]

    def memory_of(self, pid: int) -> int | None:
        """Return the bytes that a process has on all GPUs; None where none says so.

        In a container the driver may name processes by numbers of the host, and then finds none.
        """
        found = [one.usedGpuMemory for one in self._processes() if one.pid == pid]
        known = [int(used) for used in found if used is not None]
        return sum(known) if known else None

    def _processes(self) -> Iterator[Any]:
        for handle in self._handles:
            listed: Sequence[Any] | None = self._ask("nvmlDeviceGetComputeRunningProcesses", handle)
            yield from listed or ()

    def _ask(self, function: str, handle: Any, field: str = "") -> Any:
        try:
            answer = getattr(self._nvml, function)(handle)
        except self._nvml.NVMLError:  # Not every GPU, and no partition of one, says everything.
            return None
        return getattr(answer, field) if field else answer

    def _name(self, handle: Any) -> str:
        name = self._nvml.nvmlDeviceGetName(handle)
        return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _find_nvml() -> Any:
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1e3
