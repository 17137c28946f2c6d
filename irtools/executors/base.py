"""What an executor is: workers that come and go, and answer one job at a time."""

from __future__ import annotations

import importlib
import socket
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from irtools.errors import UnsupportedError
from irtools.measure.machine import code_digest, machine
from irtools.version import __version__

__all__ = [
    "Answered",
    "Event",
    "Executor",
    "Failed",
    "Hardware",
    "Joined",
    "Lost",
    "Service",
    "ServiceSpec",
    "Worker",
    "check_same_code",
    "make_service",
    "worker_here",
]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Hardware:
    """What decides a time: times of one hardware are comparable.

    Attributes:
        isa: Instruction set, as targets name it (`vnni`).
        cores: CPUs that a process may really use.
        cpu: Model name of the CPU.
    """

    isa: str
    cores: int
    cpu: str

    def __str__(self) -> str:
        return f"{self.isa}, {self.cores} cores, {self.cpu}"


@dataclass(frozen=True)
class Worker:
    """A process that runs jobs, one at a time.

    Attributes:
        name: Of this worker; another one on the same machine has another name.
        host: The machine. Workers of one host disturb each other's times.
        label: The machine, for people.
        code: Version and hash of the irtools there.
    """

    name: str
    host: str
    hardware: Hardware
    label: str
    code: str = ""


@dataclass(frozen=True)
class ServiceSpec:
    """What answers jobs in every worker.

    Attributes:
        entry: `module:Class` of a `Service`, called with `payload`.
        payload: What it is made of; can be pickled.
    """

    entry: str
    payload: Any


class Service(Protocol):
    """Answers jobs in a worker; made there when the first one comes."""

    def answer(self, payload: Any) -> Any:
        """Return the answer to a job, both of which can be pickled.

        Raises:
            IrtoolsError: The job fails; it is not tried elsewhere.
        """

    def close(self) -> None:
        """Free what it holds."""


@dataclass(frozen=True)
class Joined:
    """A worker is there, and idle."""

    worker: Worker


@dataclass(frozen=True)
class Lost:
    """A worker is gone, with the job that it had."""

    worker: str
    why: str


@dataclass(frozen=True)
class Answered:
    """A worker answered its job, and is idle."""

    worker: str
    value: Any


@dataclass(frozen=True)
class Failed:
    """A worker's job raised an error, and the worker is idle.

    Attributes:
        kind: Class name of an error of `irtools.errors`; empty: an unexpected one.
        message: Its text.
    """

    worker: str
    kind: str
    message: str


Event: TypeAlias = Joined | Lost | Answered | Failed


class Executor(Protocol):
    """Workers, wherever they are. One that is lost is replaced where that is possible.

    Attributes:
        name: As `--on` has it.
        shares_files: Workers see the files of this process under the same paths.
    """

    name: str
    shares_files: bool

    def start(self, spec: ServiceSpec) -> Sequence[Worker]:
        """Start workers and return those that are there; `poll` reports later ones.

        Raises:
            ClusterError: There is no worker.
        """

    def send(self, worker: str, payload: Any) -> None:
        """Give an idle worker a job. Where it is gone by now, `poll` says so."""

    def poll(self) -> Sequence[Event]:
        """Wait for what happens next, for a few seconds at most.

        Raises:
            ClusterError: The cluster is gone.
        """

    def close(self) -> None:
        """End all workers that it started, whatever they do."""


def worker_here(name: str = "") -> Worker:
    """Describe this process as a worker."""
    found = machine()
    return Worker(
        name or uuid.uuid4().hex[:12],
        _host(),
        Hardware(found.isa, found.quota, found.cpu),
        socket.gethostname(),
        f"{__version__} {code_digest()[:12]}",
    )


def _host() -> str:
    """Return the name of this machine: containers of one machine share its kernel, and this."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def make_service(spec: ServiceSpec) -> Service:
    """Make the service that a spec names."""
    module, _, name = spec.entry.partition(":")
    made: Service = getattr(importlib.import_module(module), name)(spec.payload)
    return made


def check_same_code(worker: Worker) -> None:
    """Refuse a worker with another irtools: what it measures would be of other code.

    Raises:
        UnsupportedError: Says which, and where.
    """
    mine = f"{__version__} {code_digest()[:12]}"
    if worker.code != mine:
        raise UnsupportedError(
            f"the worker on {worker.label} has irtools {worker.code}, and this is {mine}: install "
            f"the same one on all machines"
        )
