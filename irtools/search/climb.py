"""Climbing the ladder: one session, a state per rung, the first that keeps the goals."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass

from irtools.driver.session import Session
from irtools.errors import CheckError, DataError, LimitError, PassError, UnsupportedError
from irtools.goals import Answer, Goals, Interval
from irtools.passmanager import Pipeline, Step
from irtools.report.entries import TriedEntry
from irtools.search.ladder import ORIGINAL, Rung, Scene, rungs
from irtools.search.state import State, only_changes, shortfall
from irtools.targets import target_text

__all__ = ["REFUSALS", "Climbed", "climb", "state_of", "why_lost"]

_LONGER = 4
"""Times as long is measured where noise alone leaves a question open."""
REFUSALS = (UnsupportedError, CheckError, PassError, LimitError, DataError)


@dataclass(frozen=True)
class Climbed:
    """Where a climb ended.

    Attributes:
        state: The first state that keeps all goals, else the one nearest to them.
        tried: Every rung, in order.
        keeps: Whether it keeps the goals.
        scene: What the ladder was made for.
    """

    state: State
    tried: tuple[TriedEntry, ...]
    keeps: bool
    scene: Scene


def climb(
    session: Session,
    goals: Goals | None = None,
    on_tried: Callable[[TriedEntry], None] = lambda entry: None,
) -> Climbed:
    """Try one rung after the other; each goes on from the state of an earlier one.

    A rung that loses too much, is slower, or comes no nearer to the goals is rolled back. Without a
    goal on time or size every rung that is safe and faster is taken; with one, the first state that
    keeps all of them ends the climb.

    Args:
        session: The model, its data and its target.
        goals: What is wanted; None: the goals of the session's settings.
        on_tried: Called with each rung that was tried.
    """
    scene = Scene(session, session.job.settings.wanted if goals is None else goals)
    scene.best = scene.states[ORIGINAL] = state_of(session, session.begin())
    tried: list[TriedEntry] = []
    if not scene.is_open and _keeps(scene, scene.best):
        return Climbed(scene.best, (), True, scene)
    ladder = rungs(scene)
    for rung in ladder:
        entry = _try(scene, rung)
        tried.append(entry)
        on_tried(entry)
        if rung.start == ORIGINAL and entry.outcome != "taken":
            scene.states[rung.name] = scene.states[ORIGINAL]
        if not scene.is_open and entry.outcome == "taken" and _keeps(scene, scene.best):
            break
    return Climbed(scene.best, tuple(tried), scene.is_open or _keeps(scene, scene.best), scene)


def _try(scene: Scene, rung: Rung) -> TriedEntry:
    started = time.monotonic()
    assert scene.best is not None
    start = scene.best if rung.start is None else scene.states[rung.start]
    pipeline = Pipeline(start.pipeline, rung.passes)
    scene.session.job.watch.progress.step(f"trying {rung.name}: {pipeline}", 0, 1)
    target = target_text(scene.session.job.target)
    try:
        steps = scene.session.go_on(start.steps, Pipeline.parse(rung.passes))
        state = state_of(scene.session, steps)
        if _is_undecided(scene, state):
            scene.session.time(steps, longer=_LONGER)
            state = state_of(scene.session, steps)
    except REFUSALS as error:
        why = str(error.args[0]).partition("\n")[0]
        spent = time.monotonic() - started
        return TriedEntry(rung.name, str(pipeline), "refused", why, seconds=spent, target=target)
    why = _why_left(scene, rung, start, state)
    gain = _why_taken(scene, rung, state)
    pipeline = state.pipeline
    if state.steps[-1].model is not start.steps[-1].model:
        state = dataclasses.replace(state, steps=only_changes(state.steps))
    scene.states[rung.name] = state
    if not why:
        scene.best = state
    return TriedEntry(
        rung.name,
        str(pipeline),
        "left" if why else "taken",
        why or gain,
        state.figures,
        {str(goal): answer.value for goal, answer in scene.goals.answers(state.seen).items()},
        time.monotonic() - started,
        target,
    )


def state_of(session: Session, steps: tuple[Step, ...]) -> State:
    """Return a state with what goals are decided by."""
    return State(steps, session.observe(steps), session.closeness(steps))


def _is_undecided(scene: Scene, state: State) -> bool:
    """Whether it is noise alone that leaves open if a state is fast enough."""
    best, speed = scene.best, state.speed
    if speed is None or best is None or best.speed is None or speed.low == speed.high:
        return False
    if scene.is_open:
        return speed.low <= _to_beat(best.speed) < speed.value
    times = scene.goals.of("speedup", "max-latency")
    return any(goal.holds(state.seen) is Answer.UNDECIDED for goal in times)


def _keeps(scene: Scene, state: State | None) -> bool:
    return state is not None and scene.goals.holds(state.seen) is Answer.YES


def _why_left(scene: Scene, rung: Rung, start: State, state: State) -> str:
    """Say why the best state so far is better; empty where it is not."""
    best = scene.best
    assert best is not None
    if state.steps[-1].model is start.steps[-1].model:
        return _why_unchanged(state, "," in rung.passes)
    # What keeps the function has been checked to do so.
    if rung.loss != "none" and (lost := why_lost(scene, state)):
        return lost
    if scene.is_open:
        return _why_not_better(rung, best, state)
    if state.is_slower_than(best) and scene.wants_speed:
        return "slower than the best so far"
    if shortfall(scene.goals, state.seen) >= shortfall(scene.goals, best.seen):
        # What keeps the function is kept all the same: what follows is built on it.
        return "" if rung.loss == "none" and not state.is_slower_than(best) else "no nearer"
    return ""


def why_lost(scene: Scene, state: State) -> str:
    """Say which goal on a metric a state does not keep; empty where it keeps all."""
    quality = scene.goals.needing("data")
    lost = [goal for goal in quality if goal.holds(state.seen) is not Answer.YES]
    if lost:
        return f"{lost[0]} is not kept: {lost[0].shown(state.seen)}"
    if not quality and not state.is_close:
        return f"too far from the original: {state.closeness}"
    return ""


def _why_not_better(rung: Rung, best: State, state: State) -> str:
    if state.is_slower_than(best):
        return "slower than without it"
    if rung.loss == "none":
        return ""
    if state.speed is None or best.speed is None:
        return "" if state.size < best.size else "not smaller, and nothing was timed"
    return "" if state.speed.low > _to_beat(best.speed) else "not faster, beyond noise"


def _to_beat(best: Interval) -> float:
    """Return the speed that what loses something must exceed: never less than the original's."""
    return max(1.0, best.value)


def _why_unchanged(state: State, several: bool) -> str:
    dropped = [one for one in state.rollbacks if not one.kept]
    if dropped:
        return f"nothing of it keeps {dropped[-1].goals}"
    notes = [note for note in state.steps[-1].figures.notes if note.startswith("nothing ")]
    return notes[-1] if notes and not several else "changed nothing"


def _why_taken(scene: Scene, rung: Rung, state: State) -> str:
    """Say why a state takes the place of the best so far, and what of it was undone."""
    best = scene.best
    assert best is not None
    undone = [str(one) for one in state.rollbacks if one.planned]
    return "; ".join((_advantage(scene, rung, best, state), *undone))


def _advantage(scene: Scene, rung: Rung, best: State, state: State) -> str:
    if not scene.is_open and _keeps(scene, state):
        return "keeps the goals"
    if rung.loss == "none":
        return "keeps the function" + ("" if state.speed is None else ", not slower")
    if not scene.is_open:
        return "nearer to the goals"
    if state.speed is None or best.speed is None:
        return "smaller"
    than = "the original" if best.speed.value <= 1 else f"the best so far ({best.speed.value:.2f}x)"
    return f"faster than {than}, beyond noise"
