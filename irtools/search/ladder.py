"""The ladder: what is tried, cheap and safe first.

A rung is pipeline text that is appended to a state. The rungs are listed from top to bottom in
the order in which they are climbed; what one of them asks for may depend on what those before it
gave. What the target's table does not call fast is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from irtools.analysis.decoder import find_decoder
from irtools.driver.session import Session
from irtools.goals import Goals
from irtools.search.state import State, shortfall

__all__ = ["ORIGINAL", "Rung", "Scene", "rungs"]

ORIGINAL, EXACT = "original", "exact passes"
_INT8 = "int8"
_OPTION = re.compile(r"([a-z0-9-]+=[a-z0-9.-]+)")
_PRUNINGS = 3
_HALF = 2.0
_SPARE = 1.04
"""Factor on the speed asked of pruning: times are noisy, and int8 gains less on narrow products."""
_LEAST = 1.05
"""Least speed asked of pruning: less would be lost in the noise of times."""
_HARDLY_FASTER = "mode=weight-only"


@dataclass(frozen=True)
class Rung:
    """Something to try.

    Attributes:
        name: In words.
        start: Name of the rung from whose state it goes on; None: the best so far.
        passes: Pipeline text that is appended.
        loss: What it is expected to lose: `none`, `little`, `some`.
        cost: How long it takes, next to one int8 calibration.
    """

    name: str
    start: str | None
    passes: str
    loss: Literal["none", "little", "some"]
    cost: float


@dataclass
class Scene:
    """What a ladder is made for, and how far it was climbed.

    Attributes:
        session: The model, its target and its data.
        goals: What is to be reached.
        states: States by the name of the rung.
        best: The state that is nearest to the goals.
    """

    session: Session
    goals: Goals
    states: dict[str, State] = field(default_factory=dict)
    best: State | None = None

    @property
    def has_data(self) -> bool:
        """Whether real samples are there for ranges and refits."""
        return self.session.job.calibration is not None

    @property
    def wants_speed(self) -> bool:
        """Whether a goal is about time, or none about anything but what may be lost."""
        return bool(self.goals.of("speedup", "max-latency")) or not self.wants_size

    @property
    def wants_size(self) -> bool:
        """Whether a goal is about size on disk or in memory."""
        return bool(self.goals.of("max-size", "max-memory"))

    @property
    def is_open(self) -> bool:
        """Whether no goal says how fast or how small: what is safe and faster is wanted."""
        return not self.goals.needing("times", "file")

    def short_of(self, name: str) -> float | None:
        """Return how far the state of a rung is from the goals; None: it has none."""
        state = self.states.get(name)
        return None if state is None else shortfall(self.goals, state.seen)


def rungs(scene: Scene) -> Iterator[Rung]:
    """Yield the rungs; between two of them, the state that the first one gave is put in."""
    yield Rung(EXACT, ORIGINAL, "cleanup,fuse,sink", "none", 0.2)
    for rung in (_half, _int8, _remedies, _small, _prune, _exits):
        yield from rung(scene)


def _half(scene: Scene) -> Iterator[Rung]:
    """Half precision: where the target computes in it, and where half the size will do."""
    table = scene.session.job.target.capabilities
    computes = scene.wants_speed and "float16" in table.compute_dtypes
    short = scene.short_of(EXACT)
    stores = scene.wants_size and short is not None and short <= _HALF
    if computes or stores:
        yield Rung("float16 weights", EXACT, "fp16", "little", 0.2)


def _int8(scene: Scene) -> Iterator[Rung]:
    if scene.session.job.target.capabilities.int8_is_fast or scene.wants_size:
        yield Rung(_INT8, EXACT, "int8", "little", 1.0)


def _remedies(scene: Scene) -> Iterator[Rung]:
    """What int8 itself would try where it loses too much, one thing after the other."""
    state = scene.states.get(_INT8)
    if state is None or (state.is_close and not state.rollbacks):
        return
    plan = state.steps[-1].result.plan
    options = [] if plan is None else [_OPTION.match(text) for text in plan.remedies]
    for found in options:
        if found is not None and not (scene.wants_speed and found[1] == _HARDLY_FASTER):
            yield Rung(f"{_INT8} with {found[1]}", EXACT, f"int8:{found[1]}", "little", 3.0)


def _small(scene: Scene) -> Iterator[Rung]:
    """Four bits: embedding tables, then products too."""
    table = scene.session.job.target.capabilities
    if "int4" not in table.weight_formats:
        return
    reads_weights = find_decoder(scene.session.job.model.ir) is not None
    if scene.wants_size:
        yield Rung("int8 with tables of 4 bits", EXACT, "int8:embeddings=4", "little", 1.0)
    if scene.wants_size or (reads_weights and not scene.is_open):
        yield Rung("4-bit weights", EXACT, "int4:embeddings=4", "some", 1.0)


def _prune(scene: Scene) -> Iterator[Rung]:
    """Remove units until what int8 leaves is fast or small enough."""
    if scene.is_open or not scene.has_data:
        return
    after = ",int8" if _taken(scene, _INT8) else ""
    short = scene.short_of(_INT8 if after else EXACT)
    if short is None:
        return
    wanted = max(short * _SPARE, _LEAST)
    for number in range(_PRUNINGS):
        name = "pruning" if not number else f"more pruning ({number + 1})"
        yield Rung(name, EXACT, f"prune:{_amount(scene, wanted)}{after}", "some", 5.0)
        left = scene.short_of(name)
        if left is None or scene.states[name].rollbacks:
            return  # It is what may be lost that ends it, or there is no more to remove.
        wanted *= max(left * _SPARE, _LEAST)


def _taken(scene: Scene, name: str) -> bool:
    state, exact = scene.states.get(name), scene.states.get(EXACT)
    if state is None or exact is None or state.steps[-1].model is exact.steps[-1].model:
        return False
    return shortfall(scene.goals, state.seen) < shortfall(scene.goals, exact.seen)


def _amount(scene: Scene, wanted: float) -> str:
    if scene.goals.of("speedup", "max-latency"):
        return f"speedup={wanted:.3g}"
    return f"ratio={min(1 - 1 / wanted, 0.9):.3g}"


def _exits(scene: Scene) -> Iterator[Rung]:
    """Let samples leave early: after everything else, on whatever is the best so far."""
    if scene.has_data and scene.wants_speed and not scene.is_open:
        yield Rung("early exits", None, "early-exit", "some", 3.0)
