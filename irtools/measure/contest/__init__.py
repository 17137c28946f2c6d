"""Models against each other: speed, size, outputs and task metric, on the same samples."""

from __future__ import annotations

from irtools.measure.contest.base import ContestResult, ContestSettings, Isolation, Standing
from irtools.measure.contest.contest import Contest, Timer
from irtools.measure.contest.entrants import describe
from irtools.measure.contest.feeds import Timed
from irtools.measure.contest.kept import Asked, KeptScores
from irtools.measure.contest.loss import (
    least_samples,
    loss_of_draws,
    loss_of_nothing,
    loss_of_rows,
    loss_of_shares,
)
from irtools.measure.contest.outputs import EntrantScore
from irtools.measure.contest.paired import paired_difference
from irtools.measure.contest.samples import KeptOutputs, Outputs, Part
from irtools.measure.contest.scoring import LazyRunner, Tally, answers, output_bytes, stack_rows
from irtools.measure.timing import Contender

__all__ = [
    "Asked",
    "Contender",
    "Contest",
    "ContestResult",
    "ContestSettings",
    "Isolation",
    "KeptOutputs",
    "KeptScores",
    "LazyRunner",
    "Outputs",
    "Part",
    "EntrantScore",
    "Standing",
    "Tally",
    "Timed",
    "Timer",
    "answers",
    "describe",
    "least_samples",
    "loss_of_draws",
    "loss_of_nothing",
    "loss_of_rows",
    "loss_of_shares",
    "output_bytes",
    "paired_difference",
    "stack_rows",
]
