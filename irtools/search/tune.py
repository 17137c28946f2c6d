"""Searching the space of pipelines by trials, with Optuna (Akiba et al. 2019).

A trial is a pipeline. Its passes are run after those of an earlier trial with the same beginning,
and a trial that loses too much ends before it is timed. Trials run in this process or on workers,
which answer first whether a pipeline loses too much, and then how fast it is. All trials are kept
in the storage, so that a search goes on where it was stopped.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from irtools.driver.session import Session
from irtools.errors import ClusterError, UsageError
from irtools.executors import Executor, Farm, InlineExecutor, Outcome, ServiceSpec, Task
from irtools.goals import Observed
from irtools.passmanager import Pipeline
from irtools.search.climb import state_of
from irtools.search.objectives import OBJECTIVES, needs_times
from irtools.search.space import Space
from irtools.search.state import State
from irtools.search.study import Study, Trial
from irtools.search.trials import Question, Trials, Tried
from irtools.targets import Isa
from irtools.words import counted

__all__ = ["Elsewhere", "Point", "Tuned", "tune"]

_AHEAD = 2
"""Trials that are drawn for each worker: one runs, one waits."""


@dataclass(frozen=True)
class Elsewhere:
    """Workers that trials run on.

    Attributes:
        executor: Not started yet.
        payload: What a `TrialService` is made of.
        isa: Of the target.
        quotes: Figures are quoted there, for this machine is not the target's.
        on_note: Told of workers that come and go.
    """

    executor: Executor
    payload: Mapping[str, Any]
    isa: str
    quotes: bool
    on_note: Callable[[str], None]


@dataclass(frozen=True)
class Point:
    """A pipeline that no other one is better than in every objective.

    Attributes:
        trial: Its number.
        pipeline: The text that makes it.
        values: Objective to its value: time over the original's, bytes, or a share.
        milliseconds: Of the original and of the model, from the same minutes; None: not timed.
    """

    trial: int
    pipeline: str
    values: Mapping[str, float]
    milliseconds: tuple[float, float] | None = None


@dataclass(frozen=True)
class Tuned:
    """What a tuner found.

    Attributes:
        front: The Pareto front, the best in the first objective first.
        state: The model of its first point.
        quoted: Its figures, where they were taken on a worker.
        finished: Trials with figures, those of earlier runs among them.
        ended: Trials that ended early: they lost too much, changed nothing or were not possible.
        trials: All of them, in order.
    """

    front: tuple[Point, ...]
    state: State
    quoted: Observed | None
    finished: int
    ended: int
    trials: tuple[Trial, ...] = ()


def tune(
    session: Session,
    objectives: Sequence[str] = ("latency",),
    trials: int = 60,
    *,
    storage: Path | None = None,
    elsewhere: Elsewhere | None = None,
    on_trial: Callable[[int, str, str], None] = lambda number, pipeline, outcome: None,
) -> Tuned:
    """Look for the pipelines with the best figures among those that keep the goals.

    Args:
        session: The model, its data and its target; made for searching.
        objectives: Names of `OBJECTIVES`, the first one first.
        trials: Trials in all, those that are in the storage among them.
        storage: A SQLite file in which trials are kept; None: they are forgotten.
        elsewhere: Workers; None: trials run here, one after the other.
        on_trial: Called with the number of a trial, its pipeline and what came of it.

    Raises:
        MissingExtraError: Optuna is not installed.
        UsageError: An objective that cannot be measured, or no pipeline keeps the goals.
        ClusterError: The workers are gone; trials that ended are in the storage.
    """
    space = Space.of(session, objectives, may_time=elsewhere is None)
    study = Study.open(session, objectives, storage, space.first)
    here = Trials(session, objectives)
    settings = session.job.settings if elsewhere is None else elsewhere.payload["settings"]
    tuner = _Tuner(study, space, tuple(objectives), needs_times(objectives, settings), on_trial)
    with _farm(here, elsewhere, tuner.times) as farm, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tuner.run(farm, max(0, trials - study.ended))
        except ClusterError as error:
            raise _interrupted(error, study, storage, trials) from error
        front = _front(study, tuner)
        quoted = None
        if elsewhere is not None and elsewhere.quotes:
            farm.submit(Task("quote", Question("quote", front[0].pipeline), timed=tuner.times))
            quoted = next(farm.results()).get().observed
    state = state_of(session, here.steps(Pipeline.parse(front[0].pipeline)))
    return Tuned(
        front, state if quoted else here.timed(state), quoted, *study.counts, study.trials()
    )


@contextmanager
def _farm(here: Trials, elsewhere: Elsewhere | None, times: bool) -> Iterator[Farm]:
    if elsewhere is None:
        # Whatever it is, this machine's times are those that are wanted.
        isa = Isa.detect().value
        with Farm(InlineExecutor(here), ServiceSpec("", None), isa=isa) as farm:
            yield farm
        return
    spec = ServiceSpec("irtools.search.trials:TrialService", elsewhere.payload)
    wanted = elsewhere.isa if times else None
    with Farm(elsewhere.executor, spec, isa=wanted, on_note=elsewhere.on_note) as farm:
        elsewhere.on_note(
            f"{counted(farm.size, 'worker')} of {elsewhere.executor.name}"
            + (f"; times are taken on {farm.hardware}" if times else "")
        )
        yield farm


def _interrupted(
    error: ClusterError, study: Study, storage: Path | None, trials: int
) -> ClusterError:
    ended = f"{study.ended} of {counted(trials, 'trial')}"
    if storage is None:
        return ClusterError(f"{error}; {ended} had ended, and --storage FILE would have kept them")
    return ClusterError(f"{error}; {ended} are in {storage}: the same command goes on from there")


class _Tuner:
    """Draws trials, asks for them, and keeps what came of them in the study."""

    def __init__(
        self,
        study: Study,
        space: Space,
        objectives: tuple[str, ...],
        times: bool,
        tell: Callable[[int, str, str], None],
    ) -> None:
        self.study = study
        self.objectives = objectives
        self.times = times
        self._space = space
        self._tell = tell
        self._running: dict[str, Any] = {}
        # Equal models are measured once: by their fingerprint, what is known or who waits for it.
        self._known: dict[str, Tried] = dict(study.known())
        self._same: dict[str, list[str]] = {}
        self._measured: dict[str, str] = {}

    def run(self, farm: Farm, number: int) -> None:
        """Run trials until a number of them has ended."""
        self._fill(farm, number)
        drawn = len(self._running)
        for outcome in farm.results():
            self._hear(farm, outcome)
            before = len(self._running)
            self._fill(farm, number - drawn)
            drawn += len(self._running) - before

    def _fill(self, farm: Farm, left: int) -> None:
        """Draw trials for the workers, so that one waits for each."""
        wanted = _AHEAD * farm.size if farm.size > 1 else 1
        for _ in range(min(left, wanted - len(self._running))):
            trial = self.study.ask()
            text = self._space.draw(trial.suggest_categorical)
            trial.set_user_attr("pipeline", text)
            key = f"trial {self.study.number(trial)}"
            self._running[key] = trial
            farm.submit(Task(key, Question("quality", text)))

    def _hear(self, farm: Farm, outcome: Outcome) -> None:
        key, timed = outcome.task.key, outcome.task.payload.what == "times"
        # What ended several workers is given up: no other pipeline needs to suffer for it.
        lost = isinstance(outcome.error, ClusterError)
        tried = Tried(str(outcome.error)) if lost else outcome.get()
        if timed:
            print_ = self._measured.pop(key)
            if not lost:
                self._known[print_] = tried
            for same in (key, *self._same.pop(print_)):
                self._end(same, tried)
        elif tried.why:
            self._end(key, tried)
        elif tried.fingerprint in self._known:
            self._end(key, self._known[tried.fingerprint])
        elif tried.fingerprint in self._same:
            self._same[tried.fingerprint].append(key)
        else:
            self._same[tried.fingerprint] = []
            self._measured[key] = tried.fingerprint
            question = replace(outcome.task.payload, what="times")
            farm.submit(Task(key, question, timed=self.times, near=outcome.worker))

    def _end(self, key: str, tried: Tried) -> None:
        trial = self._running.pop(key)
        text = self.study.pipeline(trial)
        if tried.why:
            self.study.give_up(trial, tried)
            self._tell(self.study.number(trial), text, tried.why)
            return
        self.study.tell(trial, tried)
        self._tell(self.study.number(trial), text, self._shown(tried))

    def _shown(self, tried: Tried) -> str:
        named = zip(self.objectives, tried.values, strict=True)
        return ", ".join(OBJECTIVES[name].shown(v, tried.milliseconds) for name, v in named)


def _front(study: Study, tuner: _Tuner) -> tuple[Point, ...]:
    """Return the front, each model and each pipeline once.

    Raises:
        UsageError: No trial keeps the goals.
    """
    finished, ended = study.counts
    if not finished:
        raise UsageError(f"none of {counted(ended, 'trial')} keeps the goals: {study.last_reason}")
    return tuple(
        Point(
            one.number,
            one.pipeline,
            dict(zip(tuner.objectives, one.values, strict=True)),
            one.milliseconds,
        )
        for one in study.front()
    )
