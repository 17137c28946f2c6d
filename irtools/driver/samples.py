"""Which samples of a run are chosen by, and of which figures are quoted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from irtools.data import Dataset, SyntheticSettings, halves
from irtools.driver.job import Job
from irtools.errors import DataError, UnsupportedError
from irtools.measure.contest import least_samples, loss_of_nothing
from irtools.measure.drawable import DrawnInputs
from irtools.metrics import Metric
from irtools.words import counted

__all__ = ["Samples", "check_decidable", "keep_fresh", "samples_of"]

_DRAWN, _DRAWN_FEW = 32, 8
"""Samples that are drawn to compare models on."""


@dataclass(frozen=True)
class Samples:
    """Data that models are judged on.

    Attributes:
        choosing: What decides; None: nothing is decided by data.
        quoted: What the report's figures are of.
        fresh: What the last ones of a search are compared on, which nothing was chosen by before;
            None: nothing is kept for that.
        note: How they were split; empty where they were not.
    """

    choosing: Dataset | None
    quoted: Dataset
    note: str = ""
    fresh: Dataset | None = None


def samples_of(job: Job, drawn: DrawnInputs, *, lossy: bool, choosing: bool) -> Samples | None:
    """Return the data to judge models on; None: none was given and none can be drawn that runs.

    Args:
        lossy: A pass may change numbers; without one there is only the runtime's rounding to see.
        choosing: Something is decided by data, so that the figures must be of other samples.

    Raises:
        DataError: Goals need data and there is none, or too little to be split.
    """
    data = job.data if job.holdout is None else job.evaluation
    if data is None:
        count = (_DRAWN if lossy else _DRAWN_FEW) * (2 if choosing else 1)
        settings = SyntheticSettings(samples=count, seed=job.settings.seed)
        try:
            data = drawn.synthesize(settings, job.model)
        except (DataError, UnsupportedError) as error:
            if goals := list(job.settings.wanted.needing("data")):
                raise DataError(f"{goals[0].name} needs data to be measured on: {error}") from error
            return None
    if not choosing:
        return Samples(None, data)
    if job.holdout is not None:
        note = (
            f"chosen by {counted(len(data), 'sample')} of {data.source}, quoted on "
            f"{counted(len(job.holdout), 'sample')} of {job.holdout.source}"
        )
        return Samples(data, job.holdout, note)
    chosen, quoted = halves(data, job.settings.seed)
    note = (
        f"chosen by {counted(len(chosen), 'sample')} of {data.source}, quoted on the other "
        f"{len(quoted)} (split at random, seed {job.settings.seed})"
    )
    return Samples(chosen, quoted, note)


def keep_fresh(job: Job, samples: Samples, metrics: Sequence[Metric]) -> Samples:
    """Keep half of the samples that are chosen by until the best ones of a search are known.

    Of many models the one that looks best on some samples was lucky on them, too. Where the other
    half could not decide the goals, all of them decide all the time.
    """
    if samples.choosing is None:
        return samples
    try:
        choosing, fresh = halves(samples.choosing, job.settings.seed + 1)
        found = dataclasses.replace(samples, choosing=choosing, fresh=fresh)
        check_decidable(job, found, metrics)
    except DataError:
        return samples
    more = f"; the best ones of a search are compared on {len(fresh)} of those that are chosen by"
    return dataclasses.replace(found, note=found.note + more)


def check_decidable(job: Job, samples: Samples, metrics: Sequence[Metric]) -> None:
    """Refuse budgets that the data cannot decide even where not one answer changes.

    Raises:
        DataError: Says how many samples would do.
    """
    assert samples.choosing is not None
    shares = {metric.name for metric in metrics if metric.larger_is_better}
    for goal in job.settings.wanted.of("max-drop"):
        about = goal.metric or (metrics[0].name if metrics else None)
        if goal.relative or (about is not None and about not in shares):
            continue
        reach = loss_of_nothing(len(samples.choosing), len(samples.quoted))
        if reach > goal.bound:
            raise DataError(
                f"{goal} cannot be decided on {_known(job, samples)}: the interval of the loss "
                f"reaches {100 * reach:.2f} % even where no answer changes; "
                f"{_wanted(job, samples, goal.bound)}"
            )


def _known(job: Job, samples: Samples) -> str:
    assert samples.choosing is not None
    if samples.choosing.synthetic:
        return f"{counted(len(samples.choosing), 'drawn sample')}"
    if job.holdout is not None:
        return f"{counted(len(samples.choosing), 'sample')} of {samples.choosing.source}"
    total = len(samples.choosing) + len(samples.quoted)
    return (
        f"{counted(total, 'sample')} of {samples.choosing.source}, half of which are kept to "
        "quote figures of"
    )


def _wanted(job: Job, samples: Samples, bound: float) -> str:
    unseen = None if job.holdout is None else len(samples.quoted)
    needed = least_samples(bound, unseen)
    if needed is None:
        return "allow a larger loss" if not bound else "give more samples with --holdout"
    if unseen is not None:
        return f"give at least {counted(needed, 'sample')} with --evaluate"
    return f"give at least {counted(2 * needed, 'sample')} with --evaluate"
