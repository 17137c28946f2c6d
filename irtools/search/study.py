"""The study of a search: Optuna's, with what was measured of every trial."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irtools.driver.session import Session
from irtools.errors import FileError, IrtoolsError, MissingExtraError, UsageError
from irtools.goals import Interval
from irtools.search.space import SPACE_VERSION
from irtools.search.trials import Tried
from irtools.targets import target_text

__all__ = ["Finished", "Study", "Trial", "check_installed"]

_PREFIX = "irtools-"
_LOOKS_AT = 500
"""Trials that a draw looks at: drawing one more then takes less than keeping it in SQLite."""


@dataclass(frozen=True)
class Finished:
    """A trial with figures."""

    number: int
    pipeline: str
    values: tuple[float, ...]
    fingerprint: str
    milliseconds: tuple[float, float] | None
    target: str = ""


@dataclass(frozen=True)
class Trial:
    """A pipeline that was drawn and ended.

    Attributes:
        number: Its number.
        pipeline: Its text.
        figures: What was measured, as `TriedEntry` has it.
        why: Why it ended early; empty: it did not.
        seconds: Wall time, waiting for a worker included.
        target: Text of its target; empty: the only one.
    """

    number: int
    pipeline: str
    figures: Mapping[str, Interval]
    why: str = ""
    seconds: float = 0.0
    target: str = ""


class Study:
    """Trials of one search, in memory, and those that ended in a file.

    A trial is written once, when it ends: drawing one writes nothing, and what a killed process ran
    leaves no trace.

    To draw one trial TPE looks at all that it knows, so that with 100,000 it would take half a
    minute. Of a longer search it knows some: the best ones in each objective, and the last ones.

    Args:
        objectives: How many there are.
        seed: Of what is drawn.
        kept: The study of the file; None: there is none.
        looks_at: Trials that a draw looks at, at least; at most twice as many.
    """

    def __init__(
        self, objectives: int, seed: int, kept: Any = None, *, looks_at: int = _LOOKS_AT
    ) -> None:
        self._optuna = check_installed()
        self._directions = ["minimize"] * objectives
        self._sampler = self._optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        self._kept = kept
        self._looks_at = looks_at
        self._ended: list[Any] = []
        if kept is not None:
            self._ended = kept.get_trials(deepcopy=False, states=self._ended_states)
        self._asked = 1 + max(map(_number, self._ended), default=-1)
        self._known = 0
        self._study = self._begun()

    @classmethod
    def open(
        cls,
        sessions: Sequence[Session],
        objectives: Sequence[str],
        storage: Path | None,
        first: Sequence[Mapping[str, str]],
    ) -> Study:
        """Make a study, or go on with the one that the storage has of the same search.

        Args:
            sessions: One for each target, the first one first.
            first: Choices of the first trials of a new one; what they lack is drawn.

        Raises:
            FileError: The storage cannot be used.
            UsageError: It holds trials of another search only.
        """
        optuna = check_installed()
        name = study_name(sessions, objectives)
        directions = ["minimize"] * len(objectives)
        kept = None if storage is None else _kept(optuna, storage, name, directions)
        made = cls(len(objectives), sessions[0].job.settings.seed, kept)
        # One that was stopped goes on with the first of them that have not ended.
        for choices in first[made.ended :]:
            made._study.enqueue_trial(choices, skip_if_exists=True)
        return made

    @property
    def counts(self) -> tuple[int, int]:
        """Trials with figures, and trials that ended early."""
        found = [len(self._trials(state)) for state in self._ended_states]
        return found[0], found[1]

    @property
    def _ended_states(self) -> tuple[Any, Any]:
        states = self._optuna.trial.TrialState
        return states.COMPLETE, states.PRUNED

    @property
    def ended(self) -> int:
        """Trials that need not be run again."""
        return len(self._ended)

    @property
    def last_reason(self) -> str:
        """Why the last trial that ended early did."""
        ended = self._trials(self._optuna.trial.TrialState.PRUNED)
        return ended[-1].user_attrs.get("why", "") if ended else "there was no trial"

    def ask(self) -> Any:
        """Return a new trial to draw choices from; `number` has its number."""
        if self._known > 2 * self._looks_at:
            self._study = self._begun()
        trial = self._study.ask()
        trial.set_user_attr("number", self._asked)
        self._asked += 1
        return trial

    def _begun(self) -> Any:
        """Return a study that knows the best and the last of the trials that ended."""
        study = self._optuna.create_study(directions=self._directions, sampler=self._sampler)
        known = self._remembered()
        study.add_trials(known)
        self._known = len(known)
        return study

    def _remembered(self) -> list[Any]:
        if len(self._ended) <= self._looks_at:
            return list(self._ended)
        complete = [n for n, one in enumerate(self._ended) if one.values is not None]
        share = self._looks_at // 2 // len(self._directions)
        chosen: set[int] = set()
        for place in range(len(self._directions)):
            complete.sort(key=lambda n: self._ended[n].values[place])
            chosen.update(complete[:share])
        for number in range(len(self._ended) - 1, -1, -1):
            if len(chosen) >= self._looks_at:
                break
            chosen.add(number)
        return [self._ended[number] for number in sorted(chosen)]

    def number(self, trial: Any) -> int:
        """Return the number of a trial, from 0 in the order in which they were drawn."""
        return int(trial.user_attrs["number"])

    def pipeline(self, trial: Any) -> str:
        """Return the pipeline of a trial."""
        return str(trial.user_attrs["pipeline"])

    def target(self, trial: Any) -> str:
        """Return the target of a trial."""
        return str(trial.user_attrs.get("target", ""))

    def tell(self, trial: Any, tried: Tried) -> None:
        """Keep the figures of a trial."""
        trial.set_user_attr("fingerprint", tried.fingerprint)
        trial.set_user_attr("milliseconds", tried.milliseconds)
        trial.set_user_attr("figures", {k: _numbers(one) for k, one in tried.figures.items()})
        self._keep(trial, tried.values)

    def give_up(self, trial: Any, tried: Tried) -> None:
        """Keep that a trial ended early, and what was measured until then."""
        trial.set_user_attr("why", tried.why)
        trial.set_user_attr("figures", {k: _numbers(one) for k, one in tried.figures.items()})
        self._keep(trial, None)

    def _keep(self, trial: Any, values: Sequence[float] | None) -> None:
        """End a trial; without values it ended early."""
        states = self._optuna.trial.TrialState
        state = states.PRUNED if values is None else states.COMPLETE
        # The study that drew it may not be the one that draws now.
        ended = trial.study.tell(trial, values, state=state)
        self._ended.append(ended)
        if trial.study is not self._study:
            self._study.add_trial(ended)
        self._known += 1
        if self._kept is None:
            return
        try:
            self._kept.add_trial(ended)
        except Exception as error:  # Whatever the database driver raises.
            number = self.number(trial)
            raise FileError(f"cannot keep trial {number}: {_line(error)}") from error

    def known(self) -> Iterator[tuple[str, Tried]]:
        """Yield what was measured of models, by fingerprint."""
        for found in self._trials(self._optuna.trial.TrialState.COMPLETE):
            one = _finished(found)
            if one.fingerprint:
                times = one.milliseconds
                figures = _trial(found).figures
                yield one.fingerprint, Tried("", one.fingerprint, one.values, times, figures)

    def trials(self) -> tuple[Trial, ...]:
        """Return all trials that ended, in order."""
        return tuple(map(_trial, sorted(self._ended, key=_number)))

    def front(self) -> list[Finished]:
        """Return the Pareto front, the best in the first objective first, each model once.

        Of trials that make equal models the first one stays, the shortest pipeline of them.
        """
        whole = self._optuna.create_study(directions=self._directions)
        whole.add_trials(self._trials(self._optuna.trial.TrialState.COMPLETE))
        best = sorted(map(_finished, whole.best_trials), key=_order)
        return _unique(best)

    def ranked(self) -> list[Finished]:
        """Return all trials with figures, the best in the first objective first, models once."""
        ended = map(_finished, self._trials(self._optuna.trial.TrialState.COMPLETE))
        return _unique(sorted(ended, key=_order))

    def _trials(self, state: Any) -> list[Any]:
        return [one for one in self._ended if one.state == state]


def _unique(found: Sequence[Finished]) -> list[Finished]:
    """Return the first of those that make equal models."""
    unique: dict[str, Finished] = {}
    for one in found:
        unique.setdefault(one.fingerprint or f"{one.target} {one.pipeline}", one)
    return list(unique.values())


def _number(trial: Any) -> int:
    """Return the number of a trial; one that an earlier version stored has that of the file."""
    return int(trial.user_attrs.get("number", trial.number))


def _order(one: Finished) -> tuple[Any, ...]:
    return one.values, len(one.pipeline), one.number


def _finished(trial: Any) -> Finished:
    given = trial.user_attrs
    times = given.get("milliseconds")
    return Finished(
        _number(trial),
        given["pipeline"],
        tuple(trial.values),
        given.get("fingerprint", ""),
        None if times is None else (times[0], times[1]),
        given.get("target", ""),
    )


def _trial(found: Any) -> Trial:
    """Return a trial; of one that an earlier version stored, the figures are not known."""
    known = found.user_attrs
    figures = {name: Interval(*map(float, ends)) for name, ends in known.get("figures", {}).items()}
    seconds = 0.0 if found.duration is None else found.duration.total_seconds()
    texts = (known.get(name, "") for name in ("pipeline", "why", "target"))
    pipeline, why, target = texts
    return Trial(_number(found), pipeline, figures, why, seconds, target)


def _numbers(found: Interval) -> list[float | str]:
    """Return a figure and its ends as JSON knows them."""
    return [end if math.isfinite(end) else str(end) for end in (found.value, found.low, found.high)]


def study_name(sessions: Sequence[Session], objectives: Sequence[str]) -> str:
    """Return the name under which trials are comparable: the same model, data, goals, targets."""
    job = sessions[0].job
    given = (one for one in (job.calibration, job.evaluation) if one is not None)
    data = [one.with_digest().digest for one in given]
    known = (
        f"space {SPACE_VERSION}",
        job.model.fingerprint(),
        *(t for s in sessions for t in (target_text(s.job.target), s.job.target.version())),
        str(job.settings.wanted),
        *objectives,
        *data,
    )
    return f"{_PREFIX}{hashlib.sha256('|'.join(known).encode()).hexdigest()[:16]}"


def _kept(optuna: Any, storage: Path, name: str, directions: Sequence[str]) -> Any:
    """Return the study of a file.

    Raises:
        FileError: It cannot be used.
        UsageError: It holds trials of another search only.
    """
    url = f"sqlite:///{storage.absolute()}"
    try:
        if storage.exists():
            _check_own(optuna, url, storage, name)
        return optuna.create_study(
            study_name=name, storage=url, load_if_exists=True, directions=directions
        )
    except IrtoolsError:
        raise
    except Exception as error:  # Whatever the database driver raises.
        raise FileError(f"cannot keep trials in {storage}: {_line(error)}") from error


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _check_own(optuna: Any, url: str, storage: Path, name: str) -> None:
    """Refuse a file that has trials, and none of this search."""
    names = optuna.get_all_study_names(url)
    if names and name not in names:
        raise UsageError(
            f"{storage} holds trials of another search: of another model, data, target, goals or "
            "objectives, or of another version of the runtime; give a file of its own with "
            "--storage"
        )


def check_installed() -> Any:
    """Return Optuna.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError("tuning", "tune") from error
    optuna.logging.set_verbosity(logging.ERROR)
    return optuna
