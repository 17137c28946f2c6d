"""Splitting what is wanted into sweeps that fit the memory limit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Final, Protocol

import numpy as np

from irtools.statistics.base import (
    ChannelMean,
    ChannelRange,
    ChannelSquare,
    Count,
    Gram,
    HeadGram,
    Histogram,
    MinMax,
    MovingRange,
    Reduction,
    TurnedPeak,
    Want,
)
from irtools.statistics.histogram import (
    HistogramAccumulator,
    MinMaxAccumulator,
    MovingRangeAccumulator,
)
from irtools.statistics.moments import (
    CountAccumulator,
    GramAccumulator,
    HeadGramAccumulator,
    MeanAccumulator,
    RangeAccumulator,
    SquareAccumulator,
    TurnedPeakAccumulator,
    gram_bytes,
)

__all__ = ["HELD_BATCHES", "Accumulator", "Wave", "make_accumulator", "needed_values", "plan_waves"]

Shapes = Mapping[str, tuple[int, ...]]

HELD_BATCHES: Final = 2
"""Batches in memory at once: one is reduced while the runtime works on the next."""

# Large batches save the overhead of a run, which is negligible for tensors of this size.
_BATCH_BYTES: Final = HELD_BATCHES * (32 << 20)


class Accumulator(Protocol):
    """A reduction under way."""

    @property
    def state_bytes(self) -> int: ...

    def update(self, x: np.ndarray, keep: np.ndarray | None) -> None: ...

    def result(self) -> object: ...


@dataclass(frozen=True)
class Wave:
    """What one sweep collects, and how many samples it runs at once.

    Attributes:
        num_bytes: What it is expected to hold at once.
    """

    wants: tuple[Want, ...]
    batch: int
    num_bytes: int


def make_accumulator(reduction: Reduction) -> Accumulator | GramAccumulator:
    """Return an empty accumulator."""
    match reduction:
        case MinMax():
            return MinMaxAccumulator()
        case MovingRange(constant):
            return MovingRangeAccumulator(constant)
        case Histogram():
            return HistogramAccumulator()
        case ChannelMean(axis):
            return MeanAccumulator(axis)
        case ChannelRange(axis):
            return RangeAccumulator(axis)
        case ChannelSquare(axis):
            return SquareAccumulator(axis)
        case TurnedPeak(pairs, angles, axis):
            return TurnedPeakAccumulator(axis, pairs, angles)
        case Count(axis):
            return CountAccumulator(axis)
        case Gram(axis, _):
            return GramAccumulator(axis)
        case HeadGram(size, axis):
            return HeadGramAccumulator(axis, size)


def needed_values(wants: Iterable[Want]) -> tuple[str, ...]:
    """Return the tensors that the wants read, each once."""
    names: dict[str, None] = {}
    for want in wants:
        names[want.value] = None
        if isinstance(want.reduction, Gram) and want.reduction.against is not None:
            names[want.reduction.against] = None
    return tuple(names)


def plan_waves(wants: Sequence[Want], shapes: Shapes, limit: int, batch: int) -> list[Wave]:
    """Split the wants so that each wave stays under `limit` bytes.

    One sweep with small batches beats two with large ones, so the batch shrinks first. A want
    that alone does not fit is collected alone.

    Args:
        shapes: Value name to its shape for one sample, the longest.
        batch: Largest number of samples at once.
    """
    waves: list[Wave] = []
    group: list[Want] = []
    seen: set[str] = set()
    values = states = 0
    for want in wants:
        fresh = [name for name in needed_values([want]) if name not in seen]
        more_values, state = _value_bytes(fresh, shapes), _state_bytes(want, shapes)
        if group and values + states + more_values + state > limit:
            waves.append(_wave(group, values, states, limit, batch))
            group, seen, values, states = [], set(), 0, 0
            more_values = _value_bytes(needed_values([want]), shapes)
        group.append(want)
        seen.update(needed_values([want]))
        values, states = values + more_values, states + state
    return [*waves, _wave(group, values, states, limit, batch)] if group else []


def _wave(wants: list[Want], values: int, states: int, limit: int, batch: int) -> Wave:
    room = min(limit - states, _BATCH_BYTES)
    if any(isinstance(want.reduction, MovingRange) for want in wants):
        batch = 1  # An average over samples must not depend on how many fit into memory.
    size = max(1, min(batch, room // max(values, 1)))
    return Wave(tuple(wants), size, size * values + states)


def _value_bytes(names: Iterable[str], shapes: Shapes) -> int:
    return HELD_BATCHES * sum(4 * prod(shapes[name]) for name in names)


def _state_bytes(want: Want, shapes: Shapes) -> int:
    shape = shapes[want.value]
    match want.reduction:
        case MinMax() | MovingRange():
            return MinMaxAccumulator.state_bytes
        case Histogram():
            return HistogramAccumulator.state_bytes
        case ChannelMean(axis) | ChannelSquare(axis) | TurnedPeak(_, _, axis):
            return 8 * _channels(shape, axis)
        case ChannelRange(axis):
            return 16 * _channels(shape, axis)
        case Count():
            return 8
        case Gram(axis, against):
            targets = 0 if against is None else _channels(shapes[against], axis)
            return gram_bytes(_channels(shape, axis), targets)
        case HeadGram(size, axis):
            return 8 * _channels(shape, axis) * (size + 2)


def _channels(shape: tuple[int, ...], axis: int) -> int:
    return shape[axis] if -len(shape) <= axis < len(shape) else 1
