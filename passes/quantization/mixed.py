"""How many bits each weight gets, in which blocks and kernels: a knapsack over predicted errors.

Every weight has a few forms, each with its bytes, with the error of its product that evidence
predicts and, where a run may take so long and no longer, with its time on the target. How much of
an error reaches the outputs differs from place to place: where calibration data was given and the
model is small enough to be run, neighbours are quantized together, group by group, and what the
outputs lose for the predicted error weighs the errors of that group. Errors of different weights
are taken as independent, so that their squares add up.

Chosen are the forms of least error for a size, or those of least size for an error: that of one
form for all, or what still keeps so many decibels of the outputs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias

import numpy as np

from irtools.errors import UnsupportedError
from irtools.passes.quantization.alternatives import Alternatives, Priced, influences
from irtools.passes.quantization.budget import Budget
from irtools.passes.quantization.times import Clock
from irtools.passes.quantization.trial_run import Effort, Trials
from irtools.passmanager import Decision, Plan, choose_within
from irtools.plugins import Progress
from irtools.words import counted, size_text

__all__ = [
    "Mix",
    "Run",
    "Runs",
    "SEARCH_EFFORT",
    "mixed",
    "weighed_mix",
]

_SLACK = 1.01
"""So much more than the error of one form for all counts as equal."""
_SEARCH = 8
"""Trials for the least size that keeps enough."""
_TOLD = 3
"""Weights that the report names at either end."""
SEARCH_EFFORT = Effort(work=1e12, exact=False)
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
class Mix:
    """What was chosen, and what a report says of it."""

    decisions: tuple[Decision, ...]
    notes: tuple[str, ...]


def weighed_mix(
    found: Sequence[Priced],
    budget: Budget,
    rest: int,
    trials: Trials,
    others: tuple[Decision, ...],
    progress: Progress,
) -> Mix:
    """Choose one of the alternatives of each weight, by what the outputs lose where that is known.

    Trials round each code to the nearest. What they lose is taken down by what the pass is
    predicted to lose less.

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
    rounded = [item.rounded for item in found]
    if trials.run is None or trials.run.drawn:
        return mixed(rounded, budget, rest, None)

    def plan_of(some: tuple[Decision, ...]) -> Plan:
        return Plan("", (*others, *some))

    def lost(some: tuple[Decision, ...]) -> float | None:
        return trials.divergence(plan_of(some))

    nearest = [item.nearest for item in found]
    usual = Plan("", (*others, *(item.usual for item in nearest)))
    known = trials.table(
        "what reaches the outputs",
        lambda: {"factors": influences(nearest, lost, partial(progress.step, "weighing layers"))},
        decisions=usual.to_json(),
    )
    factors: list[float] = known["factors"]
    weighed = [item.weighed(f) for item, f in zip(rounded, factors, strict=True)]
    share = _Share([item.weighed(f) for item, f in zip(nearest, factors, strict=True)], weighed)

    def lost_in_the_end(some: tuple[Decision, ...]) -> float | None:
        away = lost(some)
        return None if away is None else away * share.of(some)

    runs = Runs(lambda some: trials.kept_db(plan_of(some)), lost_in_the_end)
    mix = mixed(weighed, budget, rest, runs)
    note = f"errors are weighed by what the outputs lose ({trials.told})"
    return replace(mix, notes=(note, *mix.notes))


class _Share:
    """How much of the predicted error of decisions is left by the rounding of the pass."""

    def __init__(self, nearest: Sequence[Alternatives], rounded: Sequence[Alternatives]) -> None:
        self._costs = {
            (b.subject, b.action): a.cost
            for plain, fine in zip(nearest, rounded, strict=True)
            for a, b in zip(plain.decisions, fine.decisions, strict=True)
        }

    def of(self, decisions: Sequence[Decision]) -> float:
        plain = sum(self._costs[d.subject, d.action] for d in decisions)
        return sum(d.cost for d in decisions) / plain if plain else 1.0


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
    if not found:
        return Mix((), ())
    search = _Search(found, rest, budget.clock)
    usual = search.usual
    also: tuple[str, ...] = ()
    if budget.least_db is not None:
        chosen, kept = _keeping(search, budget.least_db, runs)
        if budget.size is not None and (size := search.size(chosen)) > budget.size:
            raise UnsupportedError(
                f"min-sqnr={budget.least_db:g} takes {size_text(size)} of weights, more than size="
                f"{size_text(budget.size)}"
            )
        also = (f"{kept:.1f} dB of the outputs are kept",)
    elif budget.size is not None:
        chosen = search.within(budget.size)
    elif budget.clock is not None:
        chosen = search.in_time(search.size(usual))
    else:
        chosen = _as_usual(search, runs)
        if search.size(chosen) >= search.size(usual):
            chosen = usual
    notes = [_told(search, chosen), *also]
    if len(found) > 1 and len({d.action for d in chosen}) > 1:
        notes.append(_why(chosen, found))
    if budget.clock is not None:
        notes.append(budget.clock.told(chosen, usual))
    return Mix(chosen, tuple(notes))


@dataclass(frozen=True)
class _Search:
    """Finds decisions by their predicted costs.

    Attributes:
        found: The weights.
        rest: Bytes of all weights with no decision carried out.
        clock: Limits their time; None: no limit.
    """

    found: Sequence[Alternatives]
    rest: int
    clock: Clock | None
    usual: tuple[Decision, ...] = field(init=False)

    def __post_init__(self) -> None:
        if self.clock is not None:
            self.clock.require_fastest([item.decisions for item in self.found])
        object.__setattr__(self, "usual", tuple(item.usual for item in self.found))

    def size(self, decisions: Sequence[Decision]) -> int:
        """Return the bytes of all weights with these decisions."""
        return int(self.rest - sum(d.gain for d in decisions))

    def within(self, size: int) -> tuple[Decision, ...]:
        """Return the decisions of least error from no more bytes.

        Raises:
            UnsupportedError: There are none.
        """
        found = self._least_error(self.rest - size)
        if found is not None:
            return found
        least = self.rest - sum(max(d.gain for d in item.decisions) for item in self.found)
        if least <= size and self.clock is not None:
            raise UnsupportedError(
                f"size={size_text(size)} and {self.clock.limit_text} cannot both be kept: small "
                "forms are slower here; allow more of either"
            )
        raise UnsupportedError(
            f"size={size_text(size)} cannot be reached: the smallest forms take "
            f"{size_text(int(least))}, what stays in float32 included"
        )

    def in_time(self, size: int) -> tuple[Decision, ...]:
        """Return the decisions of least error in time, from no more bytes if there are such."""
        found = self._least_error(self.rest - size) or self._least_error(-math.inf)
        assert found is not None  # The fastest forms are fast enough.
        return found

    def as_good(self, most: float) -> tuple[Decision, ...]:
        """Return the smallest decisions whose errors add up to no more than `most`.

        Where there are none, those of least error, in time where time counts.
        """
        costs = [[d.cost for d in item.decisions] for item in self.found]
        sizes = [np.array([-d.gain for d in item.decisions]) for item in self.found]
        found = self._chosen(sizes, costs, most)
        if found is None and self.clock is not None:
            return self.in_time(self.rest)
        return found or tuple(min(item.decisions, key=lambda d: d.cost) for item in self.found)

    def _least_error(self, wanted: float) -> tuple[Decision, ...] | None:
        """Return the decisions of least error that save so many bytes; None where none do."""
        most = [max(d.gain for d in item.decisions) for item in self.found]
        bytes_more = [
            [top - d.gain for d in item.decisions]
            for top, item in zip(most, self.found, strict=True)
        ]
        costs = [np.array([d.cost for d in item.decisions]) for item in self.found]
        return self._chosen(costs, bytes_more, sum(most) - wanted)

    def _chosen(
        self, costs: Sequence[np.ndarray], uses: Sequence[Sequence[float]], limit: float
    ) -> tuple[Decision, ...] | None:
        """Return the decisions of least cost whose uses, and times, keep their limits."""
        if limit < 0:
            return None
        rows, limits = [[each] for each in uses], [limit]
        if self.clock is not None:
            limits.append(self.clock.limit)
            for row, item in zip(rows, self.found, strict=True):
                row.append(self.clock.times(item.decisions))
        levels = choose_within(costs, [np.array(row) for row in rows], limits)
        if levels is None:
            return None
        return tuple(item.decisions[level] for item, level in zip(self.found, levels, strict=True))


def _as_usual(search: _Search, runs: Runs | None) -> tuple[Decision, ...]:
    """Return the smallest decisions that lose no more than the usual ones, measured if possible."""
    usual = search.usual
    most = _SLACK * sum(d.cost for d in usual)
    limit = None if runs is None else runs.lost(usual)
    for _ in range(_SEARCH):
        chosen = search.as_good(most)
        if runs is None or limit is None:
            return chosen
        lost = runs.lost(chosen)
        if lost is not None and lost <= _SLACK * limit:
            return chosen
        # Errors added up to more than the sum of each alone: allow so much less.
        most *= 0.5 if lost is None else max(0.5, min(0.95, limit / lost))
    return usual


def _keeping(
    search: _Search, least_db: float, runs: Runs | None
) -> tuple[tuple[Decision, ...], float]:
    """Return the smallest decisions that keep so many decibels, and what they keep."""
    if runs is None:
        raise UnsupportedError(
            "min-sqnr needs a run of the model: give calibration data, and see that it runs"
        )
    finest = sum(min(d.cost for d in item.decisions) for item in search.found)
    coarsest = sum(max(d.cost for d in item.decisions) for item in search.found)
    low, high = math.log(max(finest, 1e-12)), math.log(max(coarsest, 1e-12))
    best: tuple[tuple[Decision, ...], float] | None = None
    most = -math.inf
    for number in range(_SEARCH):
        at = low if not number else (low + high) / 2
        chosen = search.as_good(math.exp(at) * (1 + 1e-9))
        kept = runs.kept_db(chosen)
        most = max(most, -math.inf if kept is None else kept)
        if kept is not None and kept >= least_db:
            low, best = at, (chosen, kept)
        elif not number:
            break
        else:
            high = at
    if best is None:
        in_time = "" if search.clock is None else f" within {search.clock.limit_text}"
        raise UnsupportedError(
            f"min-sqnr={least_db:g} cannot be kept{in_time}: the finest forms keep {most:.1f} dB"
        )
    return best


def _told(search: _Search, chosen: Sequence[Decision]) -> str:
    usual = search.usual
    forms = Counter(d.action.partition(",")[0] for d in chosen)
    parts = ", ".join(f"{counted(n, 'weight')} in {what}" for what, n in forms.most_common())
    before, after = (search.size(decisions) for decisions in (usual, chosen))
    ratio = sum(d.cost for d in chosen) / max(sum(d.cost for d in usual), 1e-12)
    return (
        f"bits=auto: {parts}; {size_text(after)} of weights instead of {size_text(before)}, "
        f"{ratio:.2f} times the predicted error"
    )


def _why(chosen: Sequence[Decision], found: Sequence[Alternatives]) -> str:
    """Return which weights got most and fewest bytes for their size, and for what."""
    per_byte = [
        (-d.gain / max(max(o.gain for o in item.decisions), 1.0), item.usual.cost, d)
        for d, item in zip(chosen, found, strict=True)
    ]
    total = sum(item.usual.cost for item in found) or 1.0
    ends = (
        ("finest", sorted(per_byte, key=lambda each: (-each[0], -each[1]))),
        ("coarsest", sorted(per_byte, key=lambda each: (each[0], each[1]))),
    )
    parts = (
        f"{name} "
        + ", ".join(f"{d.subject} ({_percent(cost / total)})" for _, cost, d in order[:_TOLD])
        for name, order in ends
    )
    return f"{'; '.join(parts)}, by their share of the error with one form for all"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "less than 1 %"
