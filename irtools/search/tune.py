"""Searching the space of pipelines by trials, with Optuna (Akiba et al. 2019).

A trial is a pipeline. Its passes are run after those of an earlier trial with the same beginning,
and a trial that loses too much ends before it is timed. All trials are kept in the storage, so that
a search goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irtools.driver.session import Session
from irtools.driver.settings import Settings
from irtools.errors import FileError, IrtoolsError, MissingExtraError, OptionError, UsageError
from irtools.goals import Answer, Interval
from irtools.measure.own_machine import refuse_foreign
from irtools.passmanager import Pipeline, Step, pass_text
from irtools.search.climb import REFUSALS, state_of, why_lost
from irtools.search.ladder import Scene
from irtools.search.space import Space
from irtools.search.state import State
from irtools.targets import target_text

__all__ = ["OBJECTIVES", "Objective", "Point", "Trial", "Tuned", "check_objectives", "tune"]

_KEPT_STATES = 8


@dataclass(frozen=True)
class Objective:
    """Something to make as small as possible.

    Attributes:
        figure: As `Observed` names it.
        timed: The model must be timed for it.
        inverse: More of the figure is better.
    """

    figure: str
    timed: bool
    inverse: bool = False

    def value(self, state: State) -> float:
        """Return the number to make small.

        Raises:
            UsageError: The figure cannot be measured here.
        """
        found, _ = state.seen.find(self.figure, None)
        if found is None:
            raise UsageError(
                f"the objective {self.figure} cannot be measured: a loss needs --evaluate, and "
                "times need the benchmark on this machine"
            )
        return 1 / found.value if self.inverse else found.value


OBJECTIVES: Mapping[str, Objective] = {
    # Relative to the original in the same minutes, which another load of the machine changes less.
    "latency": Objective("speedup", timed=True, inverse=True),
    "size": Objective("size", timed=False),
    "memory": Objective("memory", timed=True),
    "loss": Objective("loss", timed=False),
}


@dataclass(frozen=True)
class Point:
    """A pipeline that no other one is better than in every objective.

    Attributes:
        trial: Its number.
        pipeline: The text that makes it.
        values: Objective to its value: time over the original's, bytes, or a share.
    """

    trial: int
    pipeline: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Trial:
    """A pipeline that was drawn.

    Attributes:
        number: Its number.
        pipeline: Its text.
        figures: What was measured, as `TriedEntry` has it.
        why: Why it ended early; empty: it did not.
        seconds: Wall time.
    """

    number: int
    pipeline: str
    figures: Mapping[str, Interval]
    why: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Tuned:
    """What a tuner found.

    Attributes:
        front: The Pareto front, the best in the first objective first.
        state: The model of its first point.
        finished: Trials with figures, those of earlier runs among them.
        ended: Trials that ended early: they lost too much, changed nothing or were not possible.
        trials: All of them, in order.
    """

    front: tuple[Point, ...]
    state: State
    finished: int
    ended: int
    trials: tuple[Trial, ...] = ()


def tune(
    session: Session,
    objectives: Sequence[str] = ("latency",),
    trials: int = 60,
    *,
    storage: Path | None = None,
    on_trial: Callable[[int, str, str], None] = lambda number, pipeline, outcome: None,
) -> Tuned:
    """Look for the pipelines with the best figures among those that keep the goals.

    Args:
        session: The model, its data and its target; made for searching.
        objectives: Names of `OBJECTIVES`, the first one first.
        trials: Trials in all, those that are in the storage among them.
        storage: A SQLite file in which trials are kept; None: they are forgotten.
        on_trial: Called with the number of a trial, its pipeline and what came of it.

    Raises:
        MissingExtraError: Optuna is not installed.
        UsageError: An objective that cannot be measured, or no pipeline keeps the goals.
    """
    optuna = _optuna()
    study = _study(optuna, session, objectives, storage)
    done = len(study.get_trials(states=_ended(optuna)))
    tuner = _Tuner(session, tuple(objectives), on_trial)
    if not done:
        study.enqueue_trial(tuner.space.usual, skip_if_exists=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study.optimize(lambda trial: tuner.run(optuna, trial), n_trials=max(0, trials - done))
    return _result(optuna, study, tuner)


def check_objectives(objectives: Sequence[str], settings: Settings, *, labelled: bool) -> None:
    """Refuse objectives that cannot be measured, before anything is.

    Args:
        labelled: Evaluation data is given.

    Raises:
        UsageError: Says which, and what it needs.
        MissingExtraError: Optuna is not installed.
    """
    if not objectives or len(set(objectives)) < len(objectives):
        raise UsageError("give one objective or several different ones")
    for name in objectives:
        if name not in OBJECTIVES:
            raise OptionError(f"there is no objective {name!r}, expected {', '.join(OBJECTIVES)}")
        if OBJECTIVES[name].timed:
            if settings.bench is None:
                raise UsageError(f"the objective {name} needs the benchmark, which is switched off")
            refuse_foreign(settings.find_target(), f"the objective {name}")
        if name == "loss" and not (labelled and settings.wanted.needing("data")):
            raise UsageError(
                "the objective loss needs evaluation data and a largest loss (max-drop)"
            )
    _optuna()


class _Tuner:
    """Runs trials."""

    def __init__(
        self, session: Session, objectives: tuple[str, ...], tell: Callable[[int, str, str], None]
    ) -> None:
        self.session = session
        self.objectives = objectives
        self.space = Space.of(session)
        self.scene = Scene(session, session.job.settings.wanted)
        self._tell = tell
        self._states: OrderedDict[str, tuple[Step, ...]] = OrderedDict()
        self._first = session.begin()
        self._known: dict[str, tuple[tuple[float, ...], Mapping[str, Interval]]] = {}

    def run(self, optuna: Any, trial: Any) -> tuple[float, ...]:
        """Run one trial and return the values of the objectives."""
        text = self.space.draw(lambda name, options: trial.suggest_categorical(name, options))
        trial.set_user_attr("pipeline", text)
        values, figures = None, {}
        try:
            values, figures, outcome = self._values(text)
        except REFUSALS as error:
            outcome = str(error.args[0]).partition("\n")[0]
        self._tell(trial.number, text, outcome)
        trial.set_user_attr("figures", {name: _numbers(one) for name, one in figures.items()})
        if values is None:
            trial.set_user_attr("why", outcome)
            raise optuna.TrialPruned(outcome)
        return values

    def _values(self, text: str) -> tuple[tuple[float, ...] | None, Mapping[str, Interval], str]:
        """Run a pipeline; return values of the objectives, figures, and what came of it in words.

        Where it ended early there are no values.
        """
        state = state_of(self.session, self.steps(Pipeline.parse(text)))
        if lost := why_lost(self.scene, state):
            return None, state.figures, lost
        print_ = state.steps[-1].model.fingerprint()
        if print_ not in self._known:
            state = self.timed(state)
            if missed := self._missed(state):
                return None, state.figures, missed
            values = tuple(OBJECTIVES[o].value(state) for o in self.objectives)
            self._known[print_] = values, state.figures
        values, figures = self._known[print_]
        shown = (f"{name} {value:.4g}" for name, value in zip(self.objectives, values, strict=True))
        return values, figures, ", ".join(shown)

    def _missed(self, state: State) -> str:
        """Say which goal on time or size a state does not keep; empty where it keeps all."""
        for goal in self.scene.goals.needing("times", "file"):
            if goal.holds(state.seen) is not Answer.YES:
                return f"{goal} is not kept: {goal.shown(state.seen) or 'not measured'}"
        return ""

    def timed(self, state: State) -> State:
        """Return a state with the times that the objectives and the goals need."""
        timed = any(OBJECTIVES[name].timed for name in self.objectives)
        if not timed and not self.scene.goals.needing("times"):
            return state
        self.session.time(state.steps)
        return dataclasses.replace(state, seen=self.session.observe(state.steps))

    def steps(self, pipeline: Pipeline) -> tuple[Step, ...]:
        """Run a pipeline after the longest beginning of it that is known."""
        passes = [pass_text(one) for one in pipeline]
        steps, start = self._first, 0
        for length in range(len(passes), 0, -1):
            if (known := self._states.get(",".join(passes[:length]))) is not None:
                steps, start = known, length
                break
        for length in range(start, len(passes)):
            steps = self.session.go_on(steps, Pipeline.parse(passes[length]), timed=False)
            self._keep(",".join(passes[: length + 1]), steps)
        return steps

    def _keep(self, text: str, steps: tuple[Step, ...]) -> None:
        self._states[text] = steps
        while len(self._states) > _KEPT_STATES:
            self._states.popitem(last=False)


def _result(optuna: Any, study: Any, tuner: _Tuner) -> Tuned:
    complete = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    pruned = study.get_trials(states=(optuna.trial.TrialState.PRUNED,))
    if not complete:
        why = pruned[-1].user_attrs.get("why", "") if pruned else "there was no trial"
        raise UsageError(f"none of {len(pruned)} trials keeps the goals: {why}")
    unique = {t.user_attrs["pipeline"]: t for t in reversed(study.best_trials)}
    front = sorted(unique.values(), key=lambda t: (t.values, t.number))
    points = tuple(
        Point(
            t.number,
            t.user_attrs["pipeline"],
            dict(zip(tuner.objectives, t.values, strict=True)),
        )
        for t in front
    )
    steps = tuner.steps(Pipeline.parse(points[0].pipeline))
    state = tuner.timed(state_of(tuner.session, steps))
    trials = tuple(map(_trial, sorted((*complete, *pruned), key=lambda t: t.number)))
    return Tuned(points, state, len(complete), len(pruned), trials)


def _trial(found: Any) -> Trial:
    """Return a trial; of one that an earlier version stored, the figures are not known."""
    known = found.user_attrs
    figures = {name: Interval(*map(float, ends)) for name, ends in known.get("figures", {}).items()}
    seconds = 0.0 if found.duration is None else found.duration.total_seconds()
    return Trial(found.number, known.get("pipeline", ""), figures, known.get("why", ""), seconds)


def _numbers(found: Interval) -> list[float | str]:
    """Return a figure and its ends as JSON knows them."""
    return [end if math.isfinite(end) else str(end) for end in (found.value, found.low, found.high)]


def _study(optuna: Any, session: Session, objectives: Sequence[str], storage: Path | None) -> Any:
    seed = session.job.settings.seed
    try:
        return optuna.create_study(
            study_name=_name(session, objectives),
            storage=None if storage is None else f"sqlite:///{storage.absolute()}",
            load_if_exists=True,
            directions=["minimize"] * len(objectives),
            sampler=optuna.samplers.TPESampler(seed=seed),
        )
    except Exception as error:  # Whatever the database driver raises.
        if isinstance(error, IrtoolsError):
            raise
        line = str(error).partition("\n")[0]
        raise FileError(f"cannot keep trials in {storage}: {line}") from error


def _name(session: Session, objectives: Sequence[str]) -> str:
    """Return the name under which trials are comparable: the same model, data, goals and target."""
    job = session.job
    given = (one for one in (job.calibration, job.evaluation) if one is not None)
    data = [one.with_digest().digest for one in given]
    known = (
        job.model.fingerprint(),
        target_text(job.target),
        job.target.version(),
        str(job.settings.wanted),
        *objectives,
        *data,
    )
    return f"irtools-{hashlib.sha256('|'.join(known).encode()).hexdigest()[:16]}"


def _ended(optuna: Any) -> tuple[Any, ...]:
    return (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError("tuning", "tune") from error
    optuna.logging.set_verbosity(logging.ERROR)
    return optuna
