"""When to leave: thresholds on the confidence of each exit.

A sample leaves at the first exit whose head is at least as sure as that exit's threshold. The
thresholds come down one step at a time, each time the step that saves most work for each new
disagreement with the whole model, as long as the wanted agreement holds. Every step is one
decision, so that a shorter list of decisions is a more careful policy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["NEVER", "Candidate", "Outcome", "ThresholdStep", "judge", "lower_thresholds"]

NEVER = math.inf
"""Threshold of an exit that no sample takes."""

_NOTCHES = 24
_OVERHEAD = 0.05
"""Work of an exit's head, in blocks of the encoder, for every sample that reaches it."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """An exit that may be built, and how it does on samples that it was not fitted on.

    Attributes:
        depth: Blocks computed before it.
        confidence: float [N].
        agrees: bool [N], whether it decides as the whole model does.
    """

    depth: int
    confidence: np.ndarray
    agrees: np.ndarray


@dataclass(frozen=True)
class Outcome:
    """What a policy does to the samples.

    Attributes:
        agreement: Share of samples decided as the whole model decides.
        work: Mean blocks computed per sample, heads included.
        shares: Share of samples that leave at each candidate, and at the end.
    """

    agreement: float
    work: float
    shares: tuple[float, ...]


@dataclass(frozen=True)
class ThresholdStep:
    """One threshold lowered, and the outcome from there on."""

    candidate: int
    threshold: float
    outcome: Outcome


def judge(candidates: Sequence[Candidate], thresholds: Sequence[float], depth: int) -> Outcome:
    """Return what happens under given thresholds.

    Args:
        candidates: In order of depth.
        thresholds: One per candidate; `NEVER` where it is not built.
        depth: Blocks of the whole model.
    """
    count = len(candidates[0].confidence)
    inside = np.ones(count, bool)
    agreed, work, shares = 0, 0.0, []
    for candidate, threshold in zip(candidates, thresholds, strict=True):
        if threshold == NEVER:
            shares.append(0.0)
            continue
        work += _OVERHEAD * int(inside.sum())
        leaves = inside & (candidate.confidence >= threshold)
        agreed += int(candidate.agrees[leaves].sum())
        work += candidate.depth * int(leaves.sum())
        shares.append(float(leaves.mean()))
        inside &= ~leaves
    rest = int(inside.sum())
    return Outcome((agreed + rest) / count, (work + depth * rest) / count, (*shares, rest / count))


def lower_thresholds(
    candidates: Sequence[Candidate], depth: int, agreement: float, max_exits: int
) -> Iterator[ThresholdStep]:
    """Yield steps, the best first, as long as at least `agreement` holds and work is saved."""
    ladders = [_ladder(candidate.confidence) for candidate in candidates]
    thresholds = [NEVER] * len(candidates)
    now = judge(candidates, thresholds, depth)
    while True:
        best: tuple[float, ThresholdStep] | None = None
        for step in _next(candidates, ladders, thresholds, depth, max_exits):
            saved = now.work - step.outcome.work
            if saved <= 1e-9 or step.outcome.agreement < agreement:
                continue
            lost = max(now.agreement - step.outcome.agreement, 0.0)
            gain = saved / (lost + 1 / len(candidates[0].confidence))
            if best is None or gain > best[0]:
                best = gain, step
        if best is None:
            return
        yield best[1]
        thresholds[best[1].candidate] = best[1].threshold
        now = best[1].outcome


def _next(
    candidates: Sequence[Candidate],
    ladders: Sequence[Sequence[float]],
    thresholds: Sequence[float],
    depth: int,
    max_exits: int,
) -> Iterator[ThresholdStep]:
    built = sum(threshold != NEVER for threshold in thresholds)
    for index, ladder in enumerate(ladders):
        if thresholds[index] == NEVER and built >= max_exits:
            continue
        for threshold in ladder:
            if threshold < thresholds[index]:
                tried = list(thresholds)
                tried[index] = threshold
                yield ThresholdStep(index, threshold, judge(candidates, tried, depth))


def _ladder(confidence: np.ndarray) -> list[float]:
    """Thresholds that let 1/n, 2/n ... of the samples leave, halfway between two samples."""
    ordered = np.sort(confidence.astype(np.float64))[::-1]
    ranks = np.unique(np.linspace(1, len(ordered), _NOTCHES).round().astype(int))
    below = np.append(ordered[1:], ordered[-1])
    return [float((ordered[rank - 1] + below[rank - 1]) / 2) for rank in ranks]
