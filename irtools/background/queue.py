"""Jobs one after the other: two at a time would spoil each other's measurements."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

from irtools.background.commands import JobRequest
from irtools.background.job import Job
from irtools.errors import LimitError, UnknownNameError

__all__ = ["Jobs"]

_MOST_WAITING = 50


class Jobs:
    """Runs jobs in the order in which they are started. A context manager.

    One thread starts all of them and lives as long as this: a child of a thread that has ended
    would be killed with it.

    Args:
        folder: Where they run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._jobs: dict[int, Job] = {}
        self._queue: queue.Queue[Job | None] = queue.Queue()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="irc-jobs", daemon=True)
        self._thread.start()

    def start(self, request: JobRequest) -> Job:
        """Add a job; it runs when those before it have ended.

        Raises:
            LimitError: Fifty are waiting.
        """
        with self._lock:
            if sum(not job.ended for job in self._jobs.values()) >= _MOST_WAITING:
                raise LimitError(f"{_MOST_WAITING} jobs are waiting: cancel some of them")
            job = Job(len(self._jobs) + 1, request.title, request.args, request.output)
            self._jobs[job.number] = job
        self._queue.put(job)
        return job

    def find(self, number: int) -> Job:
        """Return a job.

        Raises:
            UnknownNameError: There is no such job.
        """
        job = self._jobs.get(number)
        if job is None:
            raise UnknownNameError(f"there is no job {number}")
        return job

    def all(self) -> list[Job]:
        """Return the jobs, the newest first."""
        return [*self._jobs.values()][::-1]

    def close(self) -> None:
        """Cancel all jobs and wait until they have ended."""
        self._queue.put(None)
        for job in self.all():
            job.cancel()
        self._thread.join()

    def __enter__(self) -> Jobs:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            job.run(self._folder)
