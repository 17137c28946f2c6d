"""Worker processes on this machine: `--on local:4`."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import IO, Any

from irtools.errors import ClusterError, OptionError
from irtools.executors.base import (
    Answered,
    Event,
    Failed,
    Joined,
    Lost,
    ServiceSpec,
    Worker,
)
from irtools.measure.cpu import cpu_quota
from irtools.words import counted

__all__ = ["LocalExecutor"]

_PATIENCE = 5.0


@dataclass
class _Process:
    """A worker process.

    Attributes:
        worker: What it says it is; None: it has not said so yet.
    """

    process: subprocess.Popen[bytes]
    connection: Connection
    printed: IO[bytes]
    worker: Worker | None = None

    def end(self) -> str:
        """End it and what it started; returns why it ended by itself, if it did."""
        code = self.process.poll()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        code = self.process.wait() if code is None else code
        self.connection.close()
        self.printed.seek(0)
        lines = self.printed.read().decode("utf-8", errors="replace").splitlines()
        self.printed.close()
        if code < 0:
            return f"ended by {signal.Signals(-code).name}"
        return f"ended with code {code}{': ' + lines[-1] if lines else ''}"


class LocalExecutor:
    """Processes of this machine.

    Args:
        number: How many.
    """

    shares_files = True

    def __init__(self, number: int) -> None:
        self.name = f"local:{number}"
        self._number = number
        self._processes: list[_Process] = []
        self._spec: ServiceSpec | None = None

    @classmethod
    def open(cls, place: str) -> LocalExecutor:
        """Make one of what follows `local:`; without a number there is one for each CPU.

        Raises:
            OptionError: It is not a number from 1.
        """
        if not place:
            return cls(cpu_quota())
        if not place.isdecimal() or not int(place):
            raise OptionError(f"--on local:{place}: expected a number of workers, such as local:2")
        return cls(int(place))

    def start(self, spec: ServiceSpec) -> Sequence[Worker]:
        """Start all processes, and wait for them."""
        self._spec = spec
        self._processes = [self._process() for _ in range(self._number)]
        for one in self._processes:
            try:
                one.worker = one.connection.recv()
            except EOFError as error:
                raise ClusterError(f"a worker process {one.end()}") from error
        return tuple(one.worker for one in self._processes if one.worker is not None)

    def _process(self) -> _Process:
        ours, theirs = socket.socketpair()
        printed = tempfile.TemporaryFile()  # noqa: SIM115 - it is the child's, and outlives this
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "irtools.executors.process", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=printed,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
        theirs.close()
        made = _Process(process, Connection(ours.detach()), printed)
        # A process that ended at once is found when its answer is read.
        with contextlib.suppress(OSError):
            made.connection.send(sys.path)
            made.connection.send(self._spec)
        return made

    def send(self, worker: str, payload: Any) -> None:
        """Give a process its job."""
        for one in self._processes:
            if one.worker is not None and one.worker.name == worker:
                with contextlib.suppress(OSError):
                    one.connection.send((payload,))

    def poll(self) -> Sequence[Event]:
        """Read what the processes say; in the place of one that ended another one is started."""
        by_connection = {one.connection: one for one in self._processes}
        ready = wait(list(by_connection), _PATIENCE)
        found: list[Event] = []
        for connection in ready:
            assert isinstance(connection, Connection)
            found.extend(self._events(by_connection[connection]))
        return found

    def _events(self, one: _Process) -> Sequence[Event]:
        try:
            said = one.connection.recv()
        except (EOFError, OSError):
            self._processes.remove(one)
            why = one.end()
            if one.worker is None:
                left = counted(len(self._processes), "worker")
                raise ClusterError(f"a worker process {why} at its start; {left} left") from None
            self._processes.append(self._process())
            return [Lost(one.worker.name, why)]
        if one.worker is None:
            one.worker = said
            return [Joined(said)]
        kind, value = said
        if kind is None:
            return [Answered(one.worker.name, value)]
        return [Failed(one.worker.name, kind, value)]

    def close(self) -> None:
        """End all processes."""
        for one in self._processes:
            one.end()
        self._processes = []
