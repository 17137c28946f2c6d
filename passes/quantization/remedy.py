"""How many channels leave the integer product: as many as calibration data shows the need for.

A product that multiplies some channels in float32 costs about 1 % of a small encoder's time, so
none does without need. Whether there is need, no figure of a single layer says: rounding errors of
many layers add up, or cancel. So the quantized model is run on some of the calibration samples and
compared with the float32 one, and the floor (`outliers.OutlierLimits`) rises where too little is
kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from irtools.passes.quantization.ranges.outliers import Channels
from irtools.passes.quantization.trial_run import Trials
from irtools.passmanager import Plan
from irtools.words import counted

__all__ = [
    "FLOORS_DB",
    "GAIN_DB",
    "NEED_DB",
    "Candidate",
    "Trial",
    "best_plan",
    "choose",
    "least_gain",
]

FLOORS_DB = (18.0, 20.0, 22.0, 24.0, 26.0)
"""Floors that are tried. 26 dB is more than four bits for the other channels."""

NEED_DB = 26.0
"""From here on nothing is tried that costs time: the outputs are off by 5 % of their size."""

_CHEAP_NEED_DB, _CHEAP_GAIN_DB = 30.0, 1.0
"""What costs next to no time is tried up to here, for so much more than 26 dB."""

_ENOUGH_DB = 20.0
"""What must be kept, whatever it costs: the outputs are off by 10 %."""

GAIN_DB = 0.5
"""A remedy that gains less is not taken."""

_CHEAP_SHARE = 6
"""One product in so many may cost the time: about 5 % of a small encoder's."""


@dataclass(frozen=True)
class Candidate:
    """A floor, and the channels of which activations it takes out."""

    floor_db: float
    outliers: Mapping[ir.Value, Channels]


@dataclass(frozen=True)
class Trial:
    """What a candidate keeps: SQNR of the output that suffers most, in decibels."""

    candidate: Candidate
    sqnr_db: float


def least_gain(kept_db: float) -> float | None:
    """Return what a remedy that costs next to no time must gain; None: it is not tried."""
    if kept_db >= _CHEAP_NEED_DB:
        return None
    return GAIN_DB if kept_db < NEED_DB else _CHEAP_GAIN_DB


def best_plan(
    candidates: Sequence[Candidate],
    plan_of: Callable[[Candidate], Plan],
    trials: Trials,
) -> Plan:
    """Return the plan of the floor that calibration data asks for; it says so in a note.

    Args:
        candidates: By rising floor.
        plan_of: Makes the plan of one; the same object each time.
        trials: Runs what comes of it. Without the caller's data the first plan is kept.
    """
    first = plan_of(candidates[0])
    if len(candidates) == 1 or not candidates[-1].outliers:
        return first
    if trials.run is None or trials.run.drawn:
        return first

    def measure(candidate: Candidate) -> float:
        found = trials.kept_db(plan_of(candidate))
        return math.inf if found is None else found

    products = sum(decision.data.get("form") == "static" for decision in first.decisions)
    best, tried = choose(candidates, products, measure)
    plan = plan_of(best)
    if plan is first:
        return plan
    return replace(plan, notes=(*plan.notes, _tell(best, tried, trials.told)))


def choose(
    candidates: Sequence[Candidate], products: int, measure: Callable[[Candidate], float]
) -> tuple[Candidate, tuple[Trial, ...]]:
    """Return the candidate to take, and what was tried.

    The first one is kept from 26 dB on. Otherwise the largest one whose products are at most one
    in six of all is taken, if it gains; where even it keeps less than 20 dB, the next ones up to
    the first that keeps so much.

    Args:
        candidates: By rising floor; those of equal channels count once.
        products: Number of activations that are multiplied as integers.
        measure: Runs the quantized model of a candidate.
    """
    distinct = list({len(c.outliers): c for c in reversed(candidates)}.values())[::-1]
    best = Trial(distinct[0], measure(distinct[0]))
    tried = [best]
    cheap = [c for c in distinct[1:] if len(c.outliers) * _CHEAP_SHARE <= products]
    costly = distinct[1 + len(cheap) :]
    if best.sqnr_db >= NEED_DB:
        return best.candidate, tuple(tried)
    for candidate in (*cheap[-1:], *costly):
        if candidate in costly and best.sqnr_db >= _ENOUGH_DB:
            break
        tried.append(Trial(candidate, measure(candidate)))
        if tried[-1].sqnr_db >= best.sqnr_db + GAIN_DB:
            best = tried[-1]
    return best.candidate, tuple(tried)


def _tell(chosen: Candidate, tried: Sequence[Trial], samples: str) -> str:
    """Say what was taken and why, for the report."""
    figures = ", ".join(f"{t.sqnr_db:.1f} dB at {t.candidate.floor_db:g}" for t in tried)
    return (
        f"outlier-floor={chosen.floor_db:g} by calibration data: {figures} "
        f"({samples}); large channels of "
        f"{counted(len(chosen.outliers), 'activation')} are multiplied in float32"
    )
