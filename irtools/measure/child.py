"""A process that waits for its one job, and what its end says.

What it does there is in `irtools.measure.worker`.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from irtools import errors
from irtools.errors import IrtoolsError, LimitError, PassError, UnsupportedError
from irtools.measure.wire import decode
from irtools.words import printable

__all__ = ["Child", "ChildLimits", "answer_of", "crash_of", "printed_last"]

_WORKER = Path(__file__).with_name("worker.py")
_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "out of memory", "failed to allocate memory")


@dataclass(frozen=True)
class ChildLimits:
    """What a child may use.

    Attributes:
        seconds: Wall-clock time, start included; None: no bound.
        memory: Private memory in bytes; None: no bound. Held by the kernel on Linux only.
    """

    seconds: float | None = 120.0
    memory: int | None = None


@dataclass
class Child:
    """A process that waits for its one job, and where its answer and its prints go."""

    process: subprocess.Popen[bytes]
    answer: int
    printed: IO[bytes]

    @classmethod
    def start(cls, target: str | None = None) -> Child:
        """Start one; with a target, it imports what jobs for that need while it waits."""
        printed = tempfile.TemporaryFile()  # noqa: SIM115 - it is the child's, and outlives this
        read_end, write_end = os.pipe()
        # -P: a file in the working folder must not stand in for a module.
        process = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER), str(write_end)],
            stdin=subprocess.PIPE,
            stdout=printed,
            stderr=printed,
            pass_fds=(write_end,),
            start_new_session=True,
        )
        os.close(write_end)
        child = cls(process, read_end, printed)
        child.send({"path": sys.path, **({} if target is None else _warm_up(target))})
        return child

    def send(self, job: Mapping[str, object], *, last: bool = False) -> None:
        stdin = self.process.stdin
        assert stdin is not None
        # A child that died immediately says more by its exit code.
        with suppress(BrokenPipeError):
            stdin.write(pickle.dumps(job))
            stdin.close() if last else stdin.flush()

    def discard(self) -> None:
        """End it before it got a job."""
        self.end()
        os.close(self.answer)
        self.printed.close()

    def end(self) -> None:
        """Kill it and whatever it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()


def _warm_up(target: str) -> dict[str, object]:
    """Return the job by name: here its module would be imported before the child is started."""
    return {"module": "irtools.measure.jobs", "name": "warm_up", "arguments": (target,)}


def crash_of(code: int, label: str, limits: ChildLimits, printed: str) -> IrtoolsError:
    """Return the error for a child that ended without an answer."""
    said = f"; it last said: {printed}" if printed else ""
    if code == -signal.SIGKILL:
        return LimitError(f"{label} was killed, most likely for lack of memory{said}")
    if limits.memory is not None and any(word in printed.lower() for word in _OUT_OF_MEMORY):
        return _memory_error(label, limits)
    how = f"crashed with {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return UnsupportedError(f"{label} {how}{said}")


def _memory_error(label: str, limits: ChildLimits) -> LimitError:
    bound = "" if limits.memory is None else f" of {limits.memory / 2**20:.0f} MB"
    return LimitError(f"{label} needs more memory than the limit{bound}")


def answer_of(content: bytes, label: str, limits: ChildLimits) -> Any:
    """Return the answer in what a child wrote.

    Raises:
        IrtoolsError: What it says instead.
    """
    try:
        reply = decode(content)
    except ValueError as error:
        raise UnsupportedError(f"{label} broke off in its answer: {error}") from error
    if "error" not in reply:
        return reply["answer"]
    kind, message = reply["error"], printable(reply["message"], 600)
    if kind == "LimitError" or (
        limits.memory is not None and any(word in message.lower() for word in _OUT_OF_MEMORY)
    ):
        raise _memory_error(label, limits)
    if kind in errors.__all__:
        raise _rebuild(kind, message)
    raise PassError(f"{label} failed: {message}")


def _rebuild(kind: str, message: str) -> IrtoolsError:
    made: IrtoolsError = getattr(errors, kind).__new__(getattr(errors, kind))
    # Some classes word their message from other arguments; the message is worded already.
    Exception.__init__(made, message)
    return made


def printed_last(printed: IO[bytes]) -> str:
    """Return the last line that a child printed."""
    printed.seek(0, os.SEEK_END)
    printed.seek(max(0, printed.tell() - 4000))
    lines = printed.read().decode(errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return printable(said[-1], 300) if said else ""
