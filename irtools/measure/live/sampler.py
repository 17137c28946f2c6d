"""CPU time and memory of processes, ten times a second, and what GPUs do, where there are some."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from irtools.errors import MissingExtraError
from irtools.measure.live.gpus import Gpus
from irtools.measure.live.track import Track

__all__ = ["Sampler", "check_sampler"]

_INTERVAL_SECONDS = 0.1
_SAMPLES_PER_POINT = 3
_LEAST_SECONDS = 0.25


def check_sampler() -> None:
    """Refuse to start without psutil.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import psutil  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("measuring live", "ui") from error


class Sampler:
    """Fills tracks, and calls a function about three times a second. A context manager.

    Args:
        processes: Name of a contender to the number of its process.
        tracks: Name to what is known of it.
        active: Returns the name of the contender that is asked; the CPU time of the others says
            nothing of them.
        on_point: Called with the load of each core in percent.
        gpus: What GPUs are read, and go into the tracks; None: none.
    """

    def __init__(
        self,
        processes: Mapping[str, int],
        tracks: Mapping[str, Track],
        active: Callable[[], str],
        on_point: Callable[[list[float]], None],
        gpus: Gpus | None = None,
    ) -> None:
        import psutil

        self._tracks = tracks
        self._active = active
        self._on_point = on_point
        self._gpus = gpus
        self._processes = {name: psutil.Process(pid) for name, pid in processes.items()}
        self._gone = psutil.Error
        self._cores: Callable[[], list[float]] = lambda: psutil.cpu_percent(percpu=True)
        self._earlier: tuple[str, float, float] = ("", 0.0, 0.0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="irc-sampler", daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        self._cores()  # The first call of psutil starts the interval.
        count = 0
        while not self._stop.wait(_INTERVAL_SECONDS):
            for name, process in self._processes.items():
                with suppress(self._gone):
                    self._sample(name, process)
            count += 1
            if count % _SAMPLES_PER_POINT == 0:
                self._sample_gpus()
                self._on_point(self._cores())

    def _sample_gpus(self) -> None:
        if self._gpus is None or not self._gpus.names:
            return
        for name, process in self._processes.items():
            self._tracks[name].gpu_memory = self._gpus.memory_of(process.pid)

    def _sample(self, name: str, process: Any) -> None:
        track = self._tracks[name]
        with process.oneshot():
            used, now = process.cpu_times(), time.monotonic()
            track.resident = int(process.memory_info().rss)
        if name != self._active():
            return
        earlier, since, before = self._earlier
        total = used.user + used.system
        if earlier != name:
            self._earlier = (name, now, total)
        elif now - since >= _LEAST_SECONDS:  # Linux counts in hundredths of a second.
            track.cpu = max(0.0, total - before) / (now - since)
            self._earlier = (name, now, total)
