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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from irtools import errors
from irtools.errors import IrtoolsError, LimitError, PassError, UnsupportedError
from irtools.measure.wire import decode
from irtools.words import printable

__all__ = ["ChildLimits", "run_isolated"]

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


def run_isolated(
    function: Callable[..., Any],
    *arguments: object,
    limits: ChildLimits = ChildLimits(),
    label: str = "the job",
) -> Any:
    """Call a function in a fresh process and return what it returned.

    The process is started anew, not forked: forking a process that has a runtime's threads
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
        PassError: The function failed in a way nobody foresaw.
    """
    job = {
        "module": function.__module__,
        "name": function.__qualname__,
        "arguments": arguments,
        "path": sys.path,
        "memory": limits.memory,
    }
    with tempfile.TemporaryFile() as printed:
        content, code = _run_child(pickle.dumps(job), limits, label, printed)
        if not content:
            raise _crash(code, label, limits, _tail(printed))
    return _unpack(content, label, limits)


def _run_child(
    job: bytes, limits: ChildLimits, label: str, printed: IO[bytes]
) -> tuple[bytes, int]:
    read_end, write_end = os.pipe()
    # -P: a file in the working folder must not stand in for a module.
    child = subprocess.Popen(
        [sys.executable, "-P", str(_WORKER), str(write_end)],
        stdin=subprocess.PIPE,
        stdout=printed,
        stderr=printed,
        pass_fds=(write_end,),
        start_new_session=True,
    )
    os.close(write_end)
    late = threading.Event()

    def stop() -> None:
        late.set()
        _end(child)

    timer = threading.Timer(limits.seconds or 0, stop)
    if limits.seconds is not None:
        timer.start()
    try:
        with os.fdopen(read_end, "rb") as pipe:
            _send(child, job)
            content = pipe.read()
            code = child.wait()
    finally:
        timer.cancel()
        _end(child)
    if late.is_set():
        raise LimitError(f"{label} took longer than the limit of {limits.seconds:g} s")
    return content, code


def _send(child: subprocess.Popen[bytes], job: bytes) -> None:
    assert child.stdin is not None
    try:
        child.stdin.write(job)
        child.stdin.close()
    except BrokenPipeError:
        return  # It died at once; its exit code says more.


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill the child and whatever it started."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        child.wait()


def _crash(code: int, label: str, limits: ChildLimits, printed: str) -> IrtoolsError:
    said = f"; it last said: {printed}" if printed else ""
    if code == -signal.SIGKILL:
        return LimitError(f"{label} was killed, most likely for want of memory{said}")
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
