"""A child process for work that may crash, hang, or eat memory.

A runtime meets an untrusted model here first: a crash costs one clear error, not the process.
It is a fence against accidents; it takes no rights away from the child.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from irtools.errors import LimitError
from irtools.measure.child import Child, ChildLimits, answer_of, crash_of, printed_last

__all__ = ["ChildLimits", "children_ahead", "run_isolated"]


class _Ahead:
    """Children that are started before there is a job for them: their imports take no time then.

    None is started while a job runs, which may be a measurement.
    """

    def __init__(self) -> None:
        self.target: str | None = None
        self._spare: Child | None = None
        self._lock = threading.Lock()

    def take(self) -> Child:
        with self._lock:
            child, self._spare = self._spare, None
        if child is not None and child.process.poll() is not None:
            child.discard()  # It was killed while it waited.
            child = None
        return child or Child.start()

    def refill(self) -> None:
        with self._lock:
            if self.target is not None and self._spare is None:
                self._spare = Child.start(self.target)

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
            raise crash_of(code, label, limits, printed_last(printed))
    _AHEAD.refill()
    return answer_of(content, label, limits)


def _run_child(
    child: Child, job: Mapping[str, object], limits: ChildLimits, label: str
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
