"""Trials: pipelines run and measured, by whichever process has the session."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from irtools.driver.session import Session
from irtools.driver.settings import Settings
from irtools.goals import Answer, Interval, Observed
from irtools.passmanager import Pipeline, Step, pass_text
from irtools.search.climb import REFUSALS, state_of, why_lost
from irtools.search.ladder import Scene
from irtools.search.objectives import OBJECTIVES, needs_times
from irtools.search.state import State

__all__ = ["Question", "Tried", "Trials", "untimed"]

_KEPT_STATES = 16


@dataclass(frozen=True)
class Question:
    """What is asked about a pipeline.

    Attributes:
        what: `quality`: whether it keeps the goals on metrics; `times`: the objectives, with times
            where they need any; `quote`: the figures on samples that nothing was chosen by;
            `scales`: how the originals of several targets compare.
        pipeline: Its text.
        target: Text of the target that it is for.
    """

    what: Literal["quality", "times", "quote", "scales"]
    pipeline: str = ""
    target: str = ""


@dataclass(frozen=True)
class Tried:
    """What came of a question.

    Attributes:
        why: Why the pipeline is not considered; empty: it is.
        fingerprint: Of the model that it makes: equal ones need not be measured again.
        values: Of the objectives; empty: it was not timed yet.
        milliseconds: Latency of the original and of the model; None: not timed.
        figures: All that was measured, under the names of the report.
        observed: Figures that are quoted.
    """

    why: str = ""
    fingerprint: str = ""
    values: tuple[float, ...] = ()
    milliseconds: tuple[float, float] | None = None
    figures: Mapping[str, Interval] = field(default_factory=dict)
    observed: Observed | None = None


class Trials:
    """Runs pipelines from a session; each goes on from the longest beginning that is known.

    Args:
        objectives: Names of `OBJECTIVES`.
    """

    def __init__(self, session: Session, objectives: Sequence[str]) -> None:
        self.session = session
        self.objectives = tuple(objectives)
        self.scene = Scene(session, session.job.settings.wanted)
        self._states: OrderedDict[str, tuple[Step, ...]] = OrderedDict()
        self._first = session.begin()

    def answer(self, question: Question) -> Tried:
        """Answer a question about a pipeline; of an impossible one the answer is the reason."""
        try:
            if question.what == "quality":
                return self._quality(question.pipeline)
            if question.what == "times":
                return self._times(question.pipeline)
            steps = self.steps(Pipeline.parse(question.pipeline))
            return Tried(observed=self.session.quote(steps))
        except REFUSALS as error:
            return Tried(str(error.args[0]).partition("\n")[0])

    def close(self) -> None:
        """Leave the session to its owner."""

    def _quality(self, text: str) -> Tried:
        state = self._state(text)
        why = why_lost(self.scene, state)
        return Tried(why, state.steps[-1].model.fingerprint(), figures=state.figures)

    def _times(self, text: str) -> Tried:
        return self._figured(self.timed(self._state(text)))

    def final(self, steps: tuple[Step, ...]) -> Tried:
        """Return the figures of a model that was timed against others, on samples that no trial
        had seen where there are such."""
        seen = self.session.compared(steps)
        state = State(steps, seen, self.session.closeness(steps))
        return self._figured(state, why_lost(self.scene, state))

    def _figured(self, state: State, lost: str = "") -> Tried:
        print_ = state.steps[-1].model.fingerprint()
        found = Tried(fingerprint=print_, figures=state.figures)
        if missed := lost or self._missed(state):
            return dataclasses.replace(found, why=missed)
        latency, base = state.seen.find("latency", None)
        times = None if latency is None or base is None else (base, latency.value)
        values = tuple(OBJECTIVES[name].value(state) for name in self.objectives)
        return dataclasses.replace(found, values=values, milliseconds=times)

    def _state(self, text: str) -> State:
        return state_of(self.session, self.steps(Pipeline.parse(text)))

    def _missed(self, state: State) -> str:
        """Say which goal on time or size a state does not keep; empty where it keeps all."""
        for goal in self.scene.goals.needing("times", "file"):
            if goal.holds(state.seen) is not Answer.YES:
                return f"{goal} is not kept: {goal.shown(state.seen) or 'not measured'}"
        return ""

    def timed(self, state: State) -> State:
        """Return a state with the times that the objectives and the goals need."""
        if not self.needs_times:
            return state
        self.session.time(state.steps)
        return dataclasses.replace(state, seen=self.session.observe(state.steps))

    @property
    def needs_times(self) -> bool:
        """Whether an objective or a goal is about time or memory."""
        return needs_times(self.objectives, self.session.job.settings)

    @property
    def original(self) -> Step:
        """The state before any pass."""
        return self._first[-1]

    def steps(self, pipeline: Pipeline) -> tuple[Step, ...]:
        """Run a pipeline after the longest beginning of it that is known."""
        passes = [pass_text(one) for one in pipeline]
        steps, start = self._first, 0
        for length in range(len(passes), 0, -1):
            if (known := self._states.get(",".join(passes[:length]))) is not None:
                steps, start = known, length
                break
        # What many pipelines begin with stays.
        for length in range(1, start + 1):
            if (text := ",".join(passes[:length])) in self._states:
                self._states.move_to_end(text)
        for length in range(start, len(passes)):
            steps = self.session.go_on(steps, Pipeline.parse(passes[length]), timed=False)
            self._keep(",".join(passes[: length + 1]), steps)
        return steps

    def _keep(self, text: str, steps: tuple[Step, ...]) -> None:
        self._states[text] = steps
        while len(self._states) > _KEPT_STATES:
            self._states.popitem(last=False)


def untimed(settings: Settings) -> Settings:
    """Return settings for a machine on which the target's times cannot be taken."""
    goals = settings.wanted.needing("data", "file")
    return dataclasses.replace(settings, bench=None, goals=goals)
