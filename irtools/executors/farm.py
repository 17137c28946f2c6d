"""Runs jobs on an executor: keeps its workers busy, and runs again what was lost with a worker."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from irtools import errors
from irtools.errors import ClusterError, IrtoolsError, PassError
from irtools.executors.base import (
    Answered,
    Event,
    Executor,
    Failed,
    Hardware,
    Joined,
    Lost,
    ServiceSpec,
    Worker,
)
from irtools.executors.scheduler import Scheduler, Task
from irtools.words import counted

__all__ = ["Farm", "Outcome", "error_of"]


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        worker: That answered; empty where it was given up.
        value: The service's answer.
        error: Why there is none.
    """

    task: Task
    worker: str
    value: Any = None
    error: IrtoolsError | None = None

    def get(self) -> Any:
        """Return the answer.

        Raises:
            IrtoolsError: There is none.
        """
        if self.error is not None:
            raise self.error
        return self.value


class Farm:
    """Jobs on the workers of an executor, which is closed at the end of the block.

    Args:
        executor: Not started yet.
        spec: What answers in every worker.
        isa: Instruction set that times are wanted of; None: no job is timed. Where several kinds of
            machines have it, times are taken on the kind of which there are most.
        on_note: Told of workers that come and go, a line each.

    Raises:
        ClusterError: There is no worker, or none that times may be taken on.
    """

    def __init__(
        self,
        executor: Executor,
        spec: ServiceSpec,
        *,
        isa: str | None = None,
        on_note: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._executor = executor
        self._tell = on_note
        try:
            workers = executor.start(spec)
            self.hardware = None if isa is None else _hardware(workers, isa)
        except BaseException:
            executor.close()
            raise
        self._scheduler = Scheduler(lambda worker: worker.hardware == self.hardware)
        for worker in workers:
            self._scheduler.join(worker)
        self._events: deque[Event] = deque()
        self.size = len(workers)
        self._labels = {worker.name: worker.label for worker in workers}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._executor.close()

    @property
    def pending(self) -> int:
        """Jobs without an outcome."""
        return self._scheduler.running + self._scheduler.waiting

    def submit(self, task: Task) -> None:
        """Let a job wait for a worker."""
        self._scheduler.add(task)

    def results(self) -> Iterator[Outcome]:
        """Yield outcomes as they come, until no job is left; more may be submitted meanwhile.

        Raises:
            ClusterError: The cluster is gone, or no worker is left for a job.
        """
        while self.pending or self._events:
            while (one := self._scheduler.assign()) is not None:
                self._executor.send(one.worker.name, one.task.payload)
            if not self._scheduler.running and self._scheduler.workers:
                raise ClusterError(
                    f"no worker is left with {self.hardware}, on which the other times were taken"
                )
            # Kept, so that none is lost where the caller leaves the loop.
            self._events.extend(self._executor.poll())
            while self._events:
                outcome = self._outcome(self._events.popleft())
                if outcome is not None:
                    yield outcome

    def _outcome(self, event: Event) -> Outcome | None:
        match event:
            case Joined(worker):
                self._labels[worker.name] = worker.label
                self._scheduler.join(worker)
                self._tell(f"a worker on {worker.label} joined ({worker.hardware})")
                return None
            case Answered(name, value):
                return Outcome(self._scheduler.finish(name), name, value)
            case Failed(name, kind, message):
                task = self._scheduler.finish(name)
                return Outcome(task, name, error=error_of(kind, message))
            case Lost(name, why):
                given_up = self._scheduler.lose(name)
                label = self._labels.get(name, name)
                self._tell(f"a worker on {label} was lost ({why}); what it ran is run again")
                if given_up is None:
                    return None
                lost = f"{given_up.key} was given up: {counted(given_up.lost, 'worker')} ended"
                return Outcome(given_up, "", error=ClusterError(f"{lost} while they ran it: {why}"))


def _hardware(workers: Sequence[Worker], isa: str) -> Hardware:
    """Return the hardware that times are taken on.

    Raises:
        ClusterError: No worker has the instruction set.
    """
    kinds = Counter(worker.hardware for worker in workers)
    fitting = [kind for kind in kinds if kind.isa == isa]
    if not fitting:
        found = "; ".join(f"{number} x {kind}" for kind, number in kinds.most_common())
        raise ClusterError(
            f"times are wanted of a CPU with {isa}, and no worker has one: {found}; name another "
            "one with --target NAME:isa=..., or leave the benchmark out"
        )
    return max(fitting, key=lambda kind: (kinds[kind], kind.cores))


def error_of(kind: str, message: str) -> IrtoolsError:
    """Make an error again that a worker raised."""
    found = getattr(errors, kind, None)
    if found is None:
        return PassError(f"a worker failed unexpectedly: {message}")
    # Some take other arguments than their text.
    made: IrtoolsError = found.__new__(found)
    Exception.__init__(made, message)
    return made
