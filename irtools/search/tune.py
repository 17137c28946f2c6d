"""Searching the space of pipelines by trials, with Optuna (Akiba et al. 2019).

A trial is a pipeline. Its passes are run after those of an earlier trial with the same beginning,
and a trial that loses too much ends before it is timed. With several targets a trial draws one of
them, too. The best trials are compared once more before one is chosen. Trials run in this process
or on workers, which answer first whether a pipeline loses too much, and then how fast it is. All
trials are kept in the storage, so that a search goes on where it was stopped.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from irtools.driver.session import Session
from irtools.errors import ClusterError, UsageError
from irtools.executors import Executor, Farm, InlineExecutor, Outcome, ServiceSpec, Task
from irtools.goals import Interval, Observed
from irtools.passmanager import Pipeline
from irtools.search.climb import state_of
from irtools.search.finals import Final, finals_of, play
from irtools.search.objectives import OBJECTIVES, needs_times
from irtools.search.places import Comparison, SeveralTrials, Spaces
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
        isa: Of the targets.
        quotes: Figures are quoted there, for this machine is not the targets'.
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
        target: Text of its target.
        why: Why it is among them, and how it was compared once more.
        figures: Of that comparison; empty: there was none.
    """

    trial: int
    pipeline: str
    values: Mapping[str, float]
    milliseconds: tuple[float, float] | None = None
    target: str = ""
    why: str = "on the front"
    figures: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class Tuned:
    """What a tuner found.

    Attributes:
        front: The point that was chosen, then the others of the Pareto front and those that it was
            compared with once more, the best in the first objective first.
        state: The model of the first point.
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
    sessions: Mapping[str, Session],
    objectives: Sequence[str] = ("latency",),
    trials: int = 60,
    *,
    storage: Path | None = None,
    elsewhere: Elsewhere | None = None,
    on_trial: Callable[[int, str, str], None] = lambda number, pipeline, outcome: None,
) -> Tuned:
    """Look for the pipelines with the best figures among those that keep the goals.

    Args:
        sessions: The model, its data and a target, by the text of the target; made for searching.
            Times count in those of the original on the first one.
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
    spaces = Spaces(
        {
            target: Space.of(session, objectives, may_time=elsewhere is None)
            for target, session in sessions.items()
        }
    )
    first = next(iter(sessions.values()))
    study = Study.open(list(sessions.values()), objectives, storage, spaces.first)
    here = SeveralTrials({target: Trials(one, objectives) for target, one in sessions.items()})
    settings = first.job.settings
    if elsewhere is not None:
        settings = next(iter(elsewhere.payload["settings"].values()))
    tuner = _Tuner(study, spaces, tuple(objectives), needs_times(objectives, settings), on_trial)
    with _farm(here, elsewhere, tuner.times) as farm, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tuner.compare(farm, tuple(sessions))
            tuner.run(farm, max(0, trials - study.ended))
        except ClusterError as error:
            raise _interrupted(error, study, storage, trials) from error
        front = _front(study, tuner, next(iter(sessions)))
        quoted = None
        if elsewhere is None or not elsewhere.quotes:
            front = _after_finals(front, play(here, finals_of(study, objectives)), tuner)
        front += _best_elsewhere(study, front, tuple(sessions), tuner.objectives)
        if elsewhere is not None and elsewhere.quotes:
            asked = Question("quote", front[0].pipeline, front[0].target)
            farm.submit(Task("quote", asked, timed=tuner.times))
            quoted = next(farm.results()).get().observed
    trials_of = here.trials[front[0].target]
    steps = trials_of.steps(Pipeline.parse(front[0].pipeline))
    state = state_of(sessions[front[0].target], steps)
    is_timed = quoted is not None or bool(front[0].figures)
    return Tuned(
        front, state if is_timed else trials_of.timed(state), quoted, *study.counts, study.trials()
    )


@contextmanager
def _farm(here: SeveralTrials, elsewhere: Elsewhere | None, times: bool) -> Iterator[Farm]:
    if elsewhere is None:
        # Whatever it is, this machine's times are those that are wanted.
        isa = Isa.detect().value
        with Farm(InlineExecutor(here), ServiceSpec("", None), isa=isa) as farm:
            yield farm
        return
    spec = ServiceSpec("irtools.search.service:TrialService", elsewhere.payload)
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
        spaces: Spaces,
        objectives: tuple[str, ...],
        times: bool,
        tell: Callable[[int, str, str], None],
    ) -> None:
        self.study = study
        self.objectives = objectives
        self.times = times
        self._comparison = Comparison(objectives, {"": 1.0})
        self._spaces = spaces
        self._tell = tell
        self._running: dict[str, Any] = {}
        # Equal models are measured once: by their fingerprint, what is known or who waits for it.
        self._known: dict[str, Tried] = dict(study.known())
        self._same: dict[str, list[str]] = {}
        self._measured: dict[str, str] = {}

    def compare(self, farm: Farm, targets: Sequence[str]) -> None:
        """Have the originals of several targets timed against each other, on one machine."""
        scales: Mapping[str, float] = dict.fromkeys(targets, 1.0)
        if len(targets) > 1 and self.times:
            farm.submit(Task("originals", Question("scales"), timed=True))
            for outcome in farm.results():
                scales = outcome.get()
        self._comparison = Comparison(self.objectives, scales)

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
            target, text = self._spaces.draw(trial.suggest_categorical)
            trial.set_user_attr("pipeline", text)
            trial.set_user_attr("target", target)
            key = f"trial {self.study.number(trial)}"
            self._running[key] = trial
            farm.submit(Task(key, Question("quality", text, target)))

    def _hear(self, farm: Farm, outcome: Outcome) -> None:
        key, timed = outcome.task.key, outcome.task.payload.what == "times"
        # What ended several workers is given up: no other pipeline needs to suffer for it.
        lost = isinstance(outcome.error, ClusterError)
        tried = Tried(str(outcome.error)) if lost else outcome.get()
        tried = self._comparison.of(tried, outcome.task.payload.target)
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
        if len(self._comparison.scales) > 1:
            text = f"{self.study.target(trial)}: {text}"
        if tried.why:
            self.study.give_up(trial, tried)
            self._tell(self.study.number(trial), text, tried.why)
            return
        self.study.tell(trial, tried)
        self._tell(self.study.number(trial), text, self._shown(tried))

    def _shown(self, tried: Tried) -> str:
        named = zip(self.objectives, tried.values, strict=True)
        return ", ".join(OBJECTIVES[name].shown(v, tried.milliseconds) for name, v in named)


def _front(study: Study, tuner: _Tuner, default: str) -> tuple[Point, ...]:
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
            one.target or default,
        )
        for one in study.front()
    )


def _best_elsewhere(
    study: Study, front: Sequence[Point], targets: Sequence[str], objectives: Sequence[str]
) -> tuple[Point, ...]:
    """Return the best trial of each target that has no point: what it would give is asked next."""
    missing = dict.fromkeys(targets)
    for point in front:
        missing.pop(point.target, None)
    found = []
    for target in missing:
        best = next((one for one in study.ranked() if one.target == target), None)
        if best is not None:
            values = dict(zip(objectives, best.values, strict=True))
            times, why = best.milliseconds, "the best on its target"
            found.append(Point(best.number, best.pipeline, values, times, target, why))
    return tuple(found)


def _after_finals(
    front: Sequence[Point], finals: Sequence[Final], tuner: _Tuner
) -> tuple[Point, ...]:
    """Return the winner of the finals, then what else is on the front or was compared with it."""
    if not finals:
        return tuple(front)
    known = {point.trial: point for point in front}
    default = front[0].target
    points = [_final_point(one, known, tuner.objectives, default) for one in finals]
    played = {point.trial for point in points}
    rest = [*points[1:], *(point for point in front if point.trial not in played)]
    main = tuner.objectives[0]
    return points[0], *sorted(rest, key=lambda point: point.values[main])


def _final_point(
    one: Final, known: Mapping[int, Point], objectives: Sequence[str], default: str
) -> Point:
    tried, trial = one.tried, one.trial
    on_front = "on the front" if trial.number in known else "among the best in the first objective"
    why = "; ".join(text for text in (on_front, one.how, tried.why) if text)
    return Point(
        trial.number,
        trial.pipeline,
        dict(zip(objectives, tried.values or trial.values, strict=True)),
        tried.milliseconds or trial.milliseconds,
        trial.target or default,
        why,
        tried.figures,
    )
