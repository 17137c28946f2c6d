"""An executor without processes: a test says what happens on it, and when."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from irtools.errors import ClusterError
from irtools.executors import Answered, Event, Hardware, Joined, Lost, ServiceSpec, Worker

FAST, SLOW = Hardware("vnni", 8, "fast"), Hardware("avx2", 8, "slow")


def worker(name: str, host: str | None = None, hardware: Hardware = FAST) -> Worker:
    """A worker on a machine of its own, unless a host is named."""
    return Worker(name, host or f"host of {name}", hardware, f"label of {name}")


class FakeExecutor:
    """Workers that answer in the order in which they were asked.

    Args:
        workers: That are there at first.
        answer: Makes the answer of (worker, payload): a value, or an event that happens instead.
    """

    name = "fake"
    shares_files = True

    def __init__(self, workers: Sequence[Worker], answer: Callable[[str, Any], Any]) -> None:
        self.workers = list(workers)
        self.answer = answer
        self.asked: deque[tuple[str, Any]] = deque()
        self.sent: list[tuple[str, Any]] = []
        self.most_at_once: dict[str, int] = {}
        self.closed = False

    def start(self, spec: ServiceSpec) -> Sequence[Worker]:
        return self.workers

    def send(self, worker: str, payload: Any) -> None:
        assert worker not in [name for name, _ in self.asked], "it is busy"
        self.asked.append((worker, payload))
        self.sent.append((worker, payload))

    def poll(self) -> Sequence[Event]:
        if not self.asked:
            raise ClusterError("fake has no machine left")
        name, payload = self.asked.popleft()
        found = self.answer(name, payload)
        events = found if isinstance(found, list) else [found]
        return [e if isinstance(e, Lost | Joined) else Answered(name, e) for e in events]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def make_worker() -> Callable[..., Worker]:
    return worker


@pytest.fixture
def fake() -> type[FakeExecutor]:
    return FakeExecutor
