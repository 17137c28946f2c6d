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
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np

from irtools.errors import OptionError, UnsupportedError
from irtools.passes.quantization.forms.blocks import BlockTable, Int4, Tied
from irtools.passes.quantization.forms.choose import Chosen
from irtools.passes.quantization.forms.dynamic import Dynamic
from irtools.passes.quantization.forms.rows import RowTable
from irtools.passes.quantization.forms.static import Static
from irtools.passes.quantization.forms.weight_only import WeightOnly
from irtools.passes.quantization.forms.weights import WeightForm
from irtools.passes.quantization.ranges.evidence import Evidence
from irtools.passes.quantization.sites.reasons import Reason
from irtools.passes.quantization.sites.uses import Weight
from irtools.passes.quantization.trial_run import Effort, Trials
from irtools.passmanager import Choice, Decision, Plan, choose_levels
from irtools.plugins import Progress
from irtools.targets import Capabilities
from irtools.words import counted, size_text

__all__ = [
    "Alternatives",
    "Budget",
    "Run",
    "Runs",
    "Mix",
    "SEARCH_EFFORT",
    "alternatives_of",
    "bytes_of",
    "influences",
    "mixed",
    "weighed_mix",
]

_BUCKETS = 50
"""Steps of the knapsack for each weight: rounding gives away a hundredth of the gain."""
_SLACK = 1.01
"""So much more than the error of one form for all counts as equal: the knapsack rounds."""
_GROUPS = 24
"""Trials that tell how much of an error reaches the outputs."""
_SEARCH = 8
"""Trials for the least size that keeps enough."""
SEARCH_EFFORT = Effort(largest=2 << 30, work=1e12, exact=False)
"""Of the trials: they were asked for, and kernels round activations in blocks as well."""
_NUMBER = re.compile(r"\d+")
_SIZE = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>[kMG]?B)", re.ASCII)
_UNITS = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3}


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


def bytes_of(text: str, option: str) -> int:
    """Read a size such as `80MB`, in decimal units.

    Raises:
        OptionError: It is none.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise OptionError(f"{option} is {text!r}, expected a size such as 80MB or 1.5GB")
    return int(float(found["number"]) * _UNITS[found["unit"]])


@dataclass(frozen=True)
class Alternatives:
    """What one weight may become.

    Attributes:
        usual: As it would be with one form for all.
        decisions: All that it may become, `usual` among them; costs are weighed by `influences`.
    """

    usual: Decision
    decisions: tuple[Decision, ...]

    def weighed(self, factor: float) -> Alternatives:
        """Return them with costs times a factor."""
        pairs = [(d, replace(d, cost=float(f"{d.cost * factor:.4g}"))) for d in self.decisions]
        usual = next(new for old, new in pairs if old == self.usual)
        return Alternatives(usual, tuple(new for _, new in pairs))


@dataclass(frozen=True)
class Mix:
    """What was chosen, and what a report says of it."""

    decisions: tuple[Decision, ...]
    notes: tuple[str, ...]


def alternatives_of(
    chosen: Sequence[Chosen], usual: Sequence[Decision], evidence: Evidence, workers: int = 1
) -> list[Alternatives]:
    """Return what each weight may become.

    Args:
        chosen: Weights, each with its usual form.
        usual: Their decisions; weights without one are left alone.
        evidence: Predicts errors.
        workers: So many weights are looked at at a time.
    """
    decided = {d.data["weight"]: d for d in usual}

    def alternatives(item: Chosen) -> Alternatives:
        weight, form = item
        own = decided[weight.name]
        fitting = (f for f in _others(form) if _takes(f, weight, evidence.capabilities))
        made = (other.decide(weight, evidence) for other in fitting)
        others = [d for d in made if not isinstance(d, Reason) and d.data != own.data]
        return Alternatives(own, (own, *others))

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(alternatives, (c for c in chosen if c[0].name in decided)))


def _others(form: WeightForm) -> Iterator[WeightForm]:
    """Yield the forms that may take the place of one: those that targets multiply as they are."""
    match form:
        case Int4():
            for block in (32, 64, 128):
                yield Int4(block, "affine")
                yield Int4(block, "symmetric")
            yield Int4(32, "symmetric", 8)
            yield Int4(128, "symmetric", 8)
        case Tied():
            for block in (32, 64):
                yield Tied(block, "symmetric")
                yield Tied(block, "affine", 8)
        case Static() | Dynamic() | WeightOnly():
            yield from (Int4(block, "affine") for block in (32, 64, 128))
        case RowTable() | BlockTable():
            yield BlockTable()
            yield RowTable()


def _takes(form: WeightForm, weight: Weight, capabilities: Capabilities) -> bool:
    if not form.serves(weight) or form.fits(weight, capabilities) is not None:
        return False
    if isinstance(form, Int4 | Tied | BlockTable):
        fitted = form.fitted(weight, Evidence(capabilities))
        return not isinstance(fitted, Reason) and fitted.block == form.block
    return True


def influences(
    found: Sequence[Alternatives],
    lost: Callable[[tuple[Decision, ...]], float | None],
    step: Callable[[int, int], None],
) -> list[float]:
    """Return how much of the predicted error of each weight reaches the outputs.

    Args:
        found: The weights in the order of the graph. Those whose names differ in numbers alone do
            the same in other layers; neighbours among them share a trial.
        lost: Runs the model with some decisions carried out: how far its outputs are from those of
            the original, None where that is unknown.
        step: Shows how far it is.
    """
    factors = [math.nan] * len(found)
    groups = _groups([item.usual.subject for item in found])
    for number, group in enumerate(groups):
        step(number, len(groups))
        predicted = sum(found[at].usual.cost for at in group)
        away = lost(tuple(found[at].usual for at in group)) if predicted else None
        for at in group:
            factors[at] = math.nan if away is None else away / predicted
    known = [factor for factor in factors if factor > 0]
    # What has no measured influence is cheap, not free.
    least, fallback = (min(known), float(np.median(known))) if known else (1.0, 1.0)
    return [fallback if math.isnan(factor) else max(factor, least) for factor in factors]


def _groups(names: Sequence[str]) -> list[list[int]]:
    """Return places by kind of weight and by depth, some two dozen groups."""
    kinds: dict[str, list[int]] = {}
    for at, name in enumerate(names):
        kinds.setdefault(_NUMBER.sub("#", name), []).append(at)
    size = max(1, math.ceil(len(names) / max(_GROUPS - len(kinds), 1)))
    return [
        places[start : start + size]
        for places in kinds.values()
        for start in range(0, len(places), size)
    ]


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
