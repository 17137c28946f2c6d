"""What runs in the process of a contender: requests in a closed loop, for as long as orders say.

Imports nothing but numpy and the target's runtime, so that resident memory is the model's.
"""

from __future__ import annotations

import gc
import itertools
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irtools.measure.memory import peak_memory
from irtools.measure.stream import Channel
from irtools.targets import Feeds, RunnerOptions, find_target

if TYPE_CHECKING:
    from irtools.targets import Runner

__all__ = ["answer_requests"]

_EMIT_SECONDS = 0.2


def answer_requests(
    channel: Channel, path: Path, target: str, options: RunnerOptions, feeds: Sequence[Feeds]
) -> None:
    """Load a model, then run it as orders say: `clients` and `seconds` of each.

    Emits `load_seconds` and `first_seconds`, and for each order `times` (float64 [N, 2]: when a
    request was answered, on the system's monotonic clock, and its seconds) several times a second,
    and `peak_bytes` at its end. Ends with the last order.
    """
    find_target(target).version()  # Imports the runtime, which no request of a server waits for.
    start = time.perf_counter()
    with _Copies(path, target, options) as copies:
        copies.open(1)
        loaded = time.perf_counter()
        with copies.one() as runner:
            runner.run(feeds[0])
        first = time.perf_counter() - loaded
        channel.emit({"load_seconds": loaded - start, "first_seconds": first})
        gc.disable()
        while (order := channel.receive()) is not None:
            copies.open(min(order["clients"], options.threads or 1))
            _closed_loop(channel, copies, feeds, **order)
            channel.emit({"peak_bytes": peak_memory()})


class _Copies:
    """Runners of one model that share its threads. A context manager."""

    def __init__(self, path: Path, target: str, options: RunnerOptions) -> None:
        self._path = path
        self._target = target
        self._options = options
        self._count = 0
        self._free: queue.SimpleQueue[Runner] = queue.SimpleQueue()

    def open(self, count: int) -> None:
        """Have so many of them."""
        if count == self._count:
            return
        self.__exit__()
        threads = self._options.threads
        share = None if threads is None else max(1, threads // count)
        target = find_target(self._target)
        for _ in range(count):
            self._free.put(target.runner(self._path, replace(self._options, threads=share)))
        self._count = count

    def one(self) -> _Taken:
        """Return a `with` block in which one of them is taken; waits for a free one."""
        return _Taken(self._free)

    def __enter__(self) -> _Copies:
        return self

    def __exit__(self, *exc: object) -> None:
        while self._count:
            self._free.get().close()
            self._count -= 1


class _Taken:
    def __init__(self, free: queue.SimpleQueue[Runner]) -> None:
        self._free = free

    def __enter__(self) -> Runner:
        self._runner = self._free.get()
        return self._runner

    def __exit__(self, *exc: object) -> None:
        self._free.put(self._runner)


def _closed_loop(
    channel: Channel, copies: _Copies, feeds: Sequence[Feeds], clients: int, seconds: float
) -> None:
    answered: queue.SimpleQueue[tuple[float, float]] = queue.SimpleQueue()
    failures: list[Exception] = []
    end = time.monotonic() + seconds

    def ask(number: int) -> None:
        turns = itertools.islice(itertools.cycle(feeds), number % len(feeds), None)
        try:
            while (start := time.monotonic()) < end and not failures:
                with copies.one() as runner:
                    runner.run(next(turns))
                now = time.monotonic()
                answered.put((now, now - start))
        except Exception as error:  # Raised again by the thread that waits for this one.
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(n,), daemon=True) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(_EMIT_SECONDS)
            _emit_times(channel, answered)
    _emit_times(channel, answered)
    if failures:
        raise failures[0]


def _emit_times(channel: Channel, answered: queue.SimpleQueue[tuple[float, float]]) -> None:
    found: list[Any] = [answered.get() for _ in range(answered.qsize())]
    if found:
        channel.emit({"times": np.array(found, np.float64)})
