"""The executor without workers of its own: jobs run here, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from irtools.executors.base import Answered, Event, Service, ServiceSpec, Worker, worker_here

__all__ = ["InlineExecutor"]


class InlineExecutor:
    """Answers in this process. An error of the service ends the loop as if it were called there.

    Args:
        service: That answers; the one of the spec is not made.
    """

    name = "here"
    shares_files = True

    def __init__(self, service: Service) -> None:
        self._service = service
        self._worker = worker_here("here")
        self._payloads: list[Any] = []

    def start(self, spec: ServiceSpec) -> Sequence[Worker]:
        """Return this process."""
        return (self._worker,)

    def send(self, worker: str, payload: Any) -> None:
        """Keep a job for `poll`."""
        self._payloads.append(payload)

    def poll(self) -> Sequence[Event]:
        """Run the job."""
        return [Answered("here", self._service.answer(self._payloads.pop()))]

    def close(self) -> None:
        """Leave the service to its owner."""
