"""How many bits each weight gets, and in which blocks: a knapsack over predicted errors.

Every weight has a few forms, each with its bytes and with the error of its product that evidence
predicts. How much of it reaches the outputs differs from place to place: where calibration data was
given and the model is small enough to be run, neighbours are quantized together, group by group,
and what the outputs lose for the predicted error weighs the errors of that group. Errors of
different weights are taken as independent, so that their squares add up.

Chosen are the forms of least error for a size, or those of least size for an error: that of one
form for all, or what still keeps so many decibels of the outputs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np

from irtools.errors import UnsupportedError
from irtools.passes.quantization.alternatives import Alternatives, influences
from irtools.passes.quantization.trial_run import Effort, Trials
from irtools.passmanager import Choice, Decision, Plan, choose_levels
from irtools.plugins import Progress
from irtools.words import counted, size_text

__all__ = [
    "Budget",
    "Run",
    "Runs",
    "Mix",
    "SEARCH_EFFORT",
    "mixed",
    "weighed_mix",
]

_BUCKETS = 50
"""Steps of the knapsack for each weight: rounding gives away a hundredth of the gain."""
_SLACK = 1.01
"""So much more than the error of one form for all counts as equal: the knapsack rounds."""
_SEARCH = 8
"""Trials for the least size that keeps enough."""
SEARCH_EFFORT = Effort(largest=2 << 30, work=1e12, exact=False)
"""Of the trials: they were asked for, and kernels round activations in blocks as well."""


Run: TypeAlias = Callable[[tuple[Decision, ...]], "float | None"]
"""Runs a model with some decisions carried out; None where nothing comes of it."""


@dataclass(frozen=True)
class Runs:
    """What is measured of a choice.

    Attributes:
        kept_db: Decibels of the outputs that are kept.
        lost: How far the outputs are from the original's, as in `influences`.
    """

    kept_db: Run
    lost: Run


@dataclass(frozen=True)
class Budget:
    """What may be used up. Where neither is set: as much error as one form for all has.

    Attributes:
        size: Bytes of all weights of the model afterwards; None: no limit.
        least_db: Decibels of the outputs that must be kept; None: no limit.
    """

    size: int | None = None
    least_db: float | None = None


@dataclass(frozen=True)
class Mix:
    """What was chosen, and what a report says of it."""

    decisions: tuple[Decision, ...]
    notes: tuple[str, ...]


def weighed_mix(
    found: Sequence[Alternatives],
    budget: Budget,
    rest: int,
    trials: Trials,
    others: tuple[Decision, ...],
    progress: Progress,
) -> Mix:
    """Choose one of the alternatives of each weight, by what the outputs lose where that is known.

    Args:
        found: The weights.
        budget: What may be used up.
        rest: Bytes of all weights with no decision carried out.
        trials: Run the model; with drawn data errors count as predicted.
        others: Decisions that are carried out in any case.
        progress: Shows how far it is.

    Raises:
        UnsupportedError: As `mixed`.
    """
    if trials.run is None or trials.run.drawn:
        return mixed(found, budget, rest, None)

    def plan_of(some: tuple[Decision, ...]) -> Plan:
        return Plan("", (*others, *some))

    def lost(some: tuple[Decision, ...]) -> float | None:
        return trials.divergence(plan_of(some))

    factors = influences(found, lost, partial(progress.step, "weighing layers"))
    weighed = [item.weighed(f) for item, f in zip(found, factors, strict=True)]
    runs = Runs(lambda some: trials.kept_db(plan_of(some)), lost)
    mix = mixed(weighed, budget, rest, runs)
    note = f"errors are weighed by what the outputs lose ({trials.told})"
    return replace(mix, notes=(note, *mix.notes))


def mixed(found: Sequence[Alternatives], budget: Budget, rest: int, runs: Runs | None) -> Mix:
    """Choose one of the alternatives of each weight.

    Args:
        found: The weights.
        budget: What may be used up.
        rest: Bytes of all weights with no decision carried out.
        runs: Run the model; None: nothing can be run.

    Raises:
        UnsupportedError: The budget cannot be kept, or nothing can be run that would tell.
    """
    usual = tuple(item.usual for item in found)
    also: tuple[str, ...] = ()
    if not found:
        return Mix((), ())
    if budget.least_db is not None:
        chosen, kept = _keeping(found, budget.least_db, runs)
        if budget.size is not None and (size := _size(chosen, rest)) > budget.size:
            raise UnsupportedError(
                f"min-sqnr={budget.least_db:g} takes {size_text(size)} of weights, more than size="
                f"{size_text(budget.size)}"
            )
        also = (f"{kept:.1f} dB of the outputs are kept",)
    elif budget.size is not None:
        chosen = _within(found, rest - budget.size, rest)
    else:
        chosen = _as_usual(found, usual, runs)
        if _size(chosen, rest) >= _size(usual, rest):
            chosen = usual
    return Mix(chosen, (_told(chosen, usual, rest), *also))


def _within(found: Sequence[Alternatives], wanted: float, rest: int) -> tuple[Decision, ...]:
    """Return the decisions of least error that save so many bytes."""
    orders = [sorted(item.decisions, key=lambda d: d.gain) for item in found]
    base = sum(order[0].gain for order in orders)
    choices = [
        Choice(
            np.array([d.cost for d in order]),
            np.array([d.gain - order[0].gain for d in order]),
        )
        for order in orders
    ]
    levels = _levels(choices, wanted - base)
    if levels is None:
        least = rest - sum(max(d.gain for d in order) for order in orders)
        raise UnsupportedError(
            f"size={size_text(int(rest - wanted))} cannot be reached: the smallest forms take "
            f"{size_text(int(least))}, what stays in float32 included"
        )
    return tuple(order[level] for order, level in zip(orders, levels, strict=True))


def _as_good(found: Sequence[Alternatives], most: float) -> tuple[Decision, ...]:
    """Return the smallest decisions whose errors add up to no more than `most`."""
    orders = [sorted(item.decisions, key=lambda d: -d.cost) for item in found]
    choices = [
        Choice(
            np.array([-d.gain for d in order]),
            np.array([order[0].cost - d.cost for d in order]),
        )
        for order in orders
    ]
    wanted = sum(order[0].cost for order in orders) - most
    levels = _levels(choices, wanted)
    if levels is None:
        return tuple(min(item.decisions, key=lambda d: d.cost) for item in found)
    return tuple(order[level] for order, level in zip(orders, levels, strict=True))


def _as_usual(
    found: Sequence[Alternatives], usual: tuple[Decision, ...], runs: Runs | None
) -> tuple[Decision, ...]:
    """Return the smallest decisions that lose no more than the usual ones, measured if possible."""
    most = _SLACK * sum(d.cost for d in usual)
    limit = None if runs is None else runs.lost(usual)
    for _ in range(_SEARCH):
        chosen = _as_good(found, most)
        if runs is None or limit is None:
            return chosen
        lost = runs.lost(chosen)
        if lost is not None and lost <= _SLACK * limit:
            return chosen
        # Errors added up to more than the sum of each alone: allow so much less.
        most *= 0.5 if lost is None else max(0.5, min(0.95, limit / lost))
    return usual


def _levels(choices: Sequence[Choice], wanted: float) -> tuple[int, ...] | None:
    if wanted <= 0:
        # Everything is allowed: the least cost of each.
        return tuple(int(choice.costs.argmin()) for choice in choices)
    return choose_levels(choices, wanted, max(2000, _BUCKETS * len(choices)))


def _keeping(
    found: Sequence[Alternatives], least_db: float, runs: Runs | None
) -> tuple[tuple[Decision, ...], float]:
    """Return the smallest decisions that keep so many decibels, and what they keep."""
    if runs is None:
        raise UnsupportedError(
            "min-sqnr needs a run of the model: give calibration data, and see that it runs"
        )
    finest = sum(min(d.cost for d in item.decisions) for item in found)
    coarsest = sum(max(d.cost for d in item.decisions) for item in found)
    low, high = math.log(max(finest, 1e-12)), math.log(max(coarsest, 1e-12))
    best: tuple[tuple[Decision, ...], float] | None = None
    most = -math.inf
    for number in range(_SEARCH):
        at = low if not number else (low + high) / 2
        chosen = _as_good(found, math.exp(at) * (1 + 1e-9))
        kept = runs.kept_db(chosen)
        most = max(most, -math.inf if kept is None else kept)
        if kept is not None and kept >= least_db:
            low, best = at, (chosen, kept)
        elif not number:
            break
        else:
            high = at
    if best is None:
        raise UnsupportedError(
            f"min-sqnr={least_db:g} cannot be kept: the finest forms keep {most:.1f} dB"
        )
    return best


def _size(decisions: Sequence[Decision], rest: int) -> int:
    return int(rest - sum(d.gain for d in decisions))


def _told(chosen: Sequence[Decision], usual: Sequence[Decision], rest: int) -> str:
    forms = Counter(d.action.partition(",")[0] for d in chosen)
    parts = ", ".join(f"{counted(n, 'weight')} in {what}" for what, n in forms.most_common())
    before, after = (_size(decisions, rest) for decisions in (usual, chosen))
    ratio = sum(d.cost for d in chosen) / max(sum(d.cost for d in usual), 1e-12)
    return (
        f"bits=auto: {parts}; {size_text(after)} of weights instead of {size_text(before)}, "
        f"{ratio:.2f} times the predicted error"
    )
