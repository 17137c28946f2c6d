"""A child process for work that may crash, hang, or eat memory.

A runtime meets an untrusted model here first: a crash costs one clear error, not the process.
It is a fence against accidents; it takes no rights away from the child.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from irtools import errors
from irtools.errors import IrtoolsError, LimitError, PassError, UnsupportedError
from irtools.measure.wire import decode
from irtools.words import printable

__all__ = ["ChildLimits", "children_ahead", "run_isolated"]

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
class _Child:
    """A process that waits for its one job, and where its answer and its prints go."""

    process: subprocess.Popen[bytes]
    answer: int
    printed: IO[bytes]

    @classmethod
    def start(cls, target: str | None = None) -> _Child:
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


class _Ahead:
    """Children that are started before there is a job for them: their imports take no time then.

    None is started while a job runs, which may be a measurement.
    """

    def __init__(self) -> None:
        self.target: str | None = None
        self._spare: _Child | None = None
        self._lock = threading.Lock()

    def take(self) -> _Child:
        with self._lock:
            child, self._spare = self._spare, None
        if child is not None and child.process.poll() is not None:
            child.discard()  # It was killed while it waited.
            child = None
        return child or _Child.start()

    def refill(self) -> None:
        with self._lock:
            if self.target is not None and self._spare is None:
                self._spare = _Child.start(self.target)

    def stop(self) -> None:
        with self._lock:
            self.target = None
            if self._spare is not None:
                self._spare.discard()
                self._spare = None


_AHEAD = _Ahead()


@contextmanager
def children_ahead(target: str) -> Iterator[None]:
    """Start the child of the next job while this process is busy with something else.

    Every job still has a process of its own. One inside another does nothing.

    Args:
        target: Text of the target that jobs are for; a wrong one is reported by the jobs.
    """
    if _AHEAD.target is not None:
        yield
        return
    _AHEAD.target = target
    _AHEAD.refill()
    try:
        yield
    finally:
        _AHEAD.stop()


def run_isolated(
    function: Callable[..., Any],
    *arguments: object,
    limits: ChildLimits = ChildLimits(),
    label: str = "the job",
) -> Any:
    """Call a function in a fresh process and return what it returned.

    The process is started from scratch, not forked: forking a process that has a runtime's threads
    can deadlock. It ends with this call, whether by answer, error, limit or interruption.

    Args:
        function: A module-level function. Returns mappings, lists, strings, numbers, arrays.
        arguments: Anything that can be pickled.
        limits: Bounds of time and memory.
        label: What the job is, for messages (`ort-cpu on model.onnx`).

    Raises:
        LimitError: It took too long, or too much memory.
        UnsupportedError: It crashed; names the signal.
        IrtoolsError: What the function raised.
        PassError: The function failed unexpectedly.
    """
    job = {
        "module": function.__module__,
        "name": function.__qualname__,
        "arguments": arguments,
        "memory": limits.memory,
    }
    child = _AHEAD.take()
    with child.printed as printed:
        content, code = _run_child(child, job, limits, label)
        if not content:
            raise _crash(code, label, limits, _tail(printed))
    _AHEAD.refill()
    return _unpack(content, label, limits)


def _warm_up(target: str) -> dict[str, object]:
    """Return the job by name: here its module would be imported before the child is started."""
    return {"module": "irtools.measure.jobs", "name": "warm_up", "arguments": (target,)}


def _run_child(
    child: _Child, job: Mapping[str, object], limits: ChildLimits, label: str
) -> tuple[bytes, int]:
    late = threading.Event()

    def stop() -> None:
        late.set()
        child.end()

    timer = threading.Timer(limits.seconds or 0, stop)
    timer.daemon = True
    try:
        if limits.seconds is not None:
            timer.start()
        with os.fdopen(child.answer, "rb") as pipe:
            child.send(job, last=True)
            content = pipe.read()
            code = child.process.wait()
    finally:
        timer.cancel()
        child.end()
    if late.is_set():
        raise LimitError(f"{label} took longer than the limit of {limits.seconds:g} s")
    return content, code


def _crash(code: int, label: str, limits: ChildLimits, printed: str) -> IrtoolsError:
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


def _unpack(content: bytes, label: str, limits: ChildLimits) -> Any:
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


def _tail(printed: IO[bytes]) -> str:
    printed.seek(0, os.SEEK_END)
    printed.seek(max(0, printed.tell() - 4000))
    lines = printed.read().decode(errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return printable(said[-1], 300) if said else ""
