"""What is known of one contender while it is measured."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

import numpy as np

__all__ = ["Track"]

_WINDOW_SECONDS = 10.0


class Track:
    """Requests and resources of one contender; threads add and read.

    Args:
        batch: Samples of a request.
    """

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._recent: deque[tuple[float, float]] = deque()
        self._block: list[np.ndarray] = []
        self._lock = threading.Lock()
        self.cpu: float | None = None
        self.resident = 0
        self.gpu_memory: int | None = None

    def begin(self) -> None:
        """Begin a block: what is answered from here on belongs to it."""
        with self._lock:
            self._block = []

    def forget(self) -> None:
        """Leave what was answered up to now out of the figures: another number of clients."""
        with self._lock:
            self._recent.clear()

    def add(self, times: np.ndarray) -> None:
        """Add requests: [N, 2], when each was answered and its seconds."""
        with self._lock:
            self._block.append(times[:, 1])
            self._recent.extend((float(at), float(took)) for at, took in times)

    def end(self) -> np.ndarray:
        """End a block and return the seconds of its requests."""
        with self._lock:
            return np.concatenate([np.zeros(0), *self._block])

    def point(self, now: float) -> dict[str, Any]:
        """Return the figures of the last ten seconds; milliseconds, per second, cores, bytes.

        Memory on a GPU is there where the driver says it.

        Times are None where nothing was answered in them. Throughput and cores are those of the
        time in which it is asked: the others' blocks do not count.
        """
        with self._lock:
            while self._recent and self._recent[0][0] < now - _WINDOW_SECONDS:
                self._recent.popleft()
            recent = np.array(self._recent, np.float64).reshape(-1, 2)
        found: dict[str, Any] = {"cpu": self.cpu, "rss": self.resident}
        if self.gpu_memory is not None:
            found["gpu_memory"] = self.gpu_memory
        if not len(recent):
            return found | {"p50": None, "p95": None, "p99": None, "throughput": None}
        quantiles = np.percentile(recent[:, 1], (50, 95, 99)) * 1e3
        busy = _busy_seconds(recent)
        rate = self._batch * len(recent) / busy
        return (
            found
            | dict(zip(("p50", "p95", "p99"), map(float, quantiles), strict=True))
            | {"throughput": rate}
        )


def _busy_seconds(recent: np.ndarray) -> float:
    """Return how long at least one request was under way: the length of the union of intervals."""
    starts = np.sort(recent[:, 0] - recent[:, 1])
    ends = np.sort(recent[:, 0])
    # A gap is where a request starts after the latest end before it; ends are in order.
    latest = np.concatenate([[starts[0]], ends[:-1]])
    gaps = np.maximum(starts - latest, 0.0)
    return max(float(ends[-1] - starts[0] - gaps.sum()), 1e-9)
