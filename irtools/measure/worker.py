"""The child process of `irtools.measure.sandbox` and `.stream`. Run by path.

Reads from stdin, pickled, where modules are and what to call while it waits, then one job. Sets the
job's limits, runs it, and writes one encoded answer to the file descriptor it was given. The job
of a stream writes messages before it, each after its length, and reads orders from stdin. What
the job prints goes to a file of the parent's.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import pickle
import resource
import signal
import sys
import threading
from typing import IO, Any

_PR_SET_PDEATHSIG = 1


def main() -> None:
    _die_with_parent()
    answer_fd = int(sys.argv[1])
    while_waiting = pickle.load(sys.stdin.buffer)
    sys.path[:] = while_waiting.pop("path")
    from irtools.lazy import defer_symbolic_algebra
    from irtools.measure.wire import encode

    defer_symbolic_algebra()
    if while_waiting:
        with contextlib.suppress(Exception):
            _call(while_waiting)
    job = pickle.load(sys.stdin.buffer)
    _limit_memory(job["memory"])

    with os.fdopen(answer_fd, "wb") as pipe:
        if job.get("stream"):
            channel = Channel(pipe)
            job["arguments"] = (channel, *job["arguments"])
            channel.write(_run(job))
        else:
            pipe.write(encode(_run(job)))
    sys.stdout.flush()
    # Runtimes have threads that sometimes crash while the process winds down; it has answered.
    os._exit(0)


class Channel:
    """What the function of a stream talks to its parent by; `emit` may be called by any thread."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()

    def emit(self, message: object) -> None:
        """Write a message: mappings, lists, strings, numbers, arrays."""
        self.write({"emitted": message})

    def receive(self) -> Any:
        """Wait for an order of the parent; None when there are no more."""
        try:
            return pickle.load(sys.stdin.buffer)
        except EOFError:
            return None

    def write(self, document: dict[str, Any]) -> None:
        """Write a document after its length."""
        from irtools.measure.wire import encode

        content = encode(document)
        with self._lock:
            self._pipe.write(len(content).to_bytes(8, "little") + content)
            self._pipe.flush()


def _die_with_parent() -> None:
    """Ask Linux to end this process when its parent ends, in whatever way it does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit_memory(limit: int | None) -> None:
    if limit is not None:
        # Address space counts what a mapped file or a thread's arena only reserves; this
        # counts memory that is really private to the process.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _run(job: dict[str, Any]) -> dict[str, Any]:
    from irtools.errors import IrtoolsError

    try:
        answer = _call(job)
        return {"answer": None if job.get("stream") else answer}
    except IrtoolsError as error:
        return {"error": type(error).__name__, "message": str(error)}
    except MemoryError:
        return {"error": "LimitError", "message": "out of memory"}
    except Exception as error:  # The edge of the process: the parent raises it again.
        return {"error": "", "message": f"{type(error).__name__}: {error}"}


def _call(job: dict[str, Any]) -> Any:
    function: Any = importlib.import_module(job["module"])
    for part in job["name"].split("."):
        function = getattr(function, part)
    return function(*job["arguments"])


if __name__ == "__main__":
    main()
