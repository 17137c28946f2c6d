"""Which job runs next, and on which worker. Starts nothing and knows no clock.

A timed job has its whole machine: it starts where nothing else runs, nothing starts next to it, and
while one waits for a machine no untimed job starts there. It runs only on hardware that fits. A job
whose worker is lost waits again, at the front, until it has lost too many.

Every decision takes the same time for any number of workers and jobs: machines are in sets by what
they could start next, and one event changes the place of one machine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from irtools.executors.base import Worker

__all__ = ["Assignment", "Scheduler", "Task"]


@dataclass(frozen=True)
class Task:
    """A job that waits or runs.

    Attributes:
        key: What it is, for its caller.
        payload: What the service is asked.
        timed: It measures time.
        near: The worker that has what it goes on from: it runs there as long as that worker is
            alive and may run it.
        lost: Workers that were lost while they ran it.
    """

    key: str
    payload: Any = None
    timed: bool = False
    near: str = ""
    lost: int = 0


@dataclass(frozen=True)
class Assignment:
    """A job and the worker that it goes to."""

    task: Task
    worker: Worker


@dataclass
class _Host:
    """A machine.

    Attributes:
        fits: Times may be taken here.
        idle: Its workers that do nothing.
        busy: Its workers that run a job.
        timing: A timed job runs.
        own: Timed jobs that go on from what a worker here has.
    """

    name: str
    fits: bool
    idle: dict[str, Worker] = field(default_factory=dict)
    busy: dict[str, Task] = field(default_factory=dict)
    timing: bool = False
    own: deque[Task] = field(default_factory=deque)


class Scheduler:
    """Jobs that wait, machines, and what runs where.

    Args:
        fits: Whether times may be taken on a worker.
        most_lost: Workers that a job may lose; then it is given up, since it seems to end them.

    Attributes:
        running: Jobs that run.
        waiting: Jobs that wait.
    """

    def __init__(self, fits: Callable[[Worker], bool], most_lost: int = 3) -> None:
        self._fits = fits
        self._most_lost = most_lost
        self._plain: deque[Task] = deque()
        self._timed: deque[Task] = deque()
        self._workers: dict[str, Worker] = {}
        self._hosts: dict[str, _Host] = {}
        # Machines by what they could start now, in the order in which they became able to.
        self._due: dict[str, _Host] = {}
        self._free: dict[str, _Host] = {}
        self._open: dict[str, _Host] = {}
        self._open_fitting: dict[str, _Host] = {}
        self.running = 0
        self.waiting = 0

    @property
    def workers(self) -> tuple[Worker, ...]:
        """Workers that are there."""
        return tuple(self._workers.values())

    def join(self, worker: Worker) -> None:
        """Take up a worker that is idle."""
        host = self._hosts.setdefault(worker.host, _Host(worker.host, self._fits(worker)))
        host.idle[worker.name] = worker
        self._workers[worker.name] = worker
        self._place(host)

    def add(self, task: Task, *, first: bool = False) -> None:
        """Let a job wait, after the others or before them."""
        near = self._workers.get(task.near)
        queue = self._timed if task.timed else self._plain
        if task.timed and near is not None and self._hosts[near.host].fits:
            queue = self._hosts[near.host].own
        queue.appendleft(task) if first else queue.append(task)
        self.waiting += 1
        if near is not None:
            self._place(self._hosts[near.host])

    def assign(self) -> Assignment | None:
        """Start a job that can start now; None: there is none."""
        if self._due:
            host = next(iter(self._due.values()))
            return self._start(host, host.own.popleft())
        if self._timed and self._free:
            return self._start(next(iter(self._free.values())), self._timed.popleft())
        if self._plain:
            # Machines that could take times are drained while a timed job waits for one.
            hosts = self._open or ({} if self._timed else self._open_fitting)
            if hosts:
                return self._start(next(iter(hosts.values())), self._plain.popleft())
        return None

    def finish(self, worker: str) -> Task:
        """A worker has answered; returns what it ran."""
        found = self._workers[worker]
        host = self._hosts[found.host]
        task = self._end(host, worker)
        host.idle[worker] = found
        self._place(host)
        return task

    def lose(self, worker: str) -> Task | None:
        """A worker is gone; what it ran waits again.

        Returns:
            What it ran, where that has lost too many workers and is given up.
        """
        found = self._workers.pop(worker, None)
        if found is None:
            return None
        host = self._hosts[found.host]
        host.idle.pop(worker, None)
        task = self._end(host, worker) if worker in host.busy else None
        moved, host.own = host.own, deque()
        self.waiting -= len(moved)
        for one in moved:
            self.add(one)
        if not host.idle and not host.busy:
            del self._hosts[host.name]
        self._place(host)
        if task is None:
            return None
        task = Task(task.key, task.payload, task.timed, "", task.lost + 1)
        if task.lost >= self._most_lost:
            return task
        self.add(task, first=True)
        return None

    def _start(self, host: _Host, task: Task) -> Assignment:
        name = task.near if task.near in host.idle else next(iter(host.idle))
        worker = host.idle.pop(name)
        host.busy[name] = task
        host.timing = task.timed
        self.running += 1
        self.waiting -= 1
        self._place(host)
        return Assignment(task, worker)

    def _end(self, host: _Host, worker: str) -> Task:
        task = host.busy.pop(worker)
        host.timing = host.timing and not task.timed
        self.running -= 1
        return task

    def _place(self, host: _Host) -> None:
        """Put a machine into the sets that it belongs to now."""
        able = bool(host.idle) and not host.timing
        alone = able and not host.busy
        opened = able and not host.own
        for hosts, member in (
            (self._due, alone and bool(host.own)),
            (self._free, alone and host.fits and not host.own),
            (self._open, opened and not host.fits),
            (self._open_fitting, opened and host.fits),
        ):
            if not member:
                hosts.pop(host.name, None)
            else:
                hosts.setdefault(host.name, host)
