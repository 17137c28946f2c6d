"""The figure of decisions that changed: which samples have another answer, and of which classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irtools.measure.figures import Figure

__all__ = ["ClassChange", "Decisions", "Flip"]

_MOST_FLIPS = 200
_MOST_CLASSES = 300


@dataclass(frozen=True)
class ClassChange:
    """The answers of one class.

    Attributes:
        label: Its number.
        support: Samples that have it as label.
        right_before: How many of these the original answers right.
        right_after: How many the model answers right.
        f1_before: Harmonic mean of precision and recall of the original; 0 without any right one.
        f1_after: That of the model.
    """

    label: int
    support: int
    right_before: int
    right_after: int
    f1_before: float
    f1_after: float


@dataclass(frozen=True)
class Flip:
    """A sample with another answer.

    Attributes:
        sample: Its position in the evaluation data, from 0.
        label: Its class.
        before: Answer of the original.
        after: Answer of the model.
    """

    sample: int
    label: int
    before: int
    after: int


@dataclass(frozen=True)
class Decisions(Figure):
    """Answers of a classifier with one class per sample, against those of the original.

    Attributes:
        samples: How many were answered.
        spoilt: Right before and wrong after.
        mended: Wrong before and right after.
        swapped: Wrong before and after, in another way.
        classes: Those that occur, the one first that loses most answers; 300 at most.
        flips: Samples with another answer, spoilt ones first; 200 at most.
    """

    key: ClassVar[str] = "decisions"
    rank: ClassVar[int] = 60
    is_flat: ClassVar[bool] = False

    samples: int
    spoilt: int
    mended: int
    swapped: int
    classes: tuple[ClassChange, ...]
    flips: tuple[Flip, ...]

    @classmethod
    def compare(cls, rows: np.ndarray, before: np.ndarray, after: np.ndarray) -> Decisions:
        """Compare the answers of two models.

        Args:
            rows: Positions of the samples in the data, [N].
            before: Class and answer of the original, [N, 2].
            after: Class and answer of the model, [N, 2].
        """
        labels, first, last = before[:, 0], before[:, 1], after[:, 1]
        spoilt = (first == labels) & (last != labels)
        mended = (first != labels) & (last == labels)
        swapped = (first != last) & ~spoilt & ~mended
        order = np.concatenate([np.flatnonzero(kind) for kind in (spoilt, mended, swapped)])
        flips = tuple(
            Flip(*(int(column[n]) for column in (rows, labels, first, last)))
            for n in order[:_MOST_FLIPS]
        )
        classes = [
            _change(label, labels, first, last) for label in np.unique([labels, first, last])
        ]
        classes.sort(key=lambda one: (one.right_after - one.right_before, one.label))
        lost, won, other = (int(kind.sum()) for kind in (spoilt, mended, swapped))
        return cls(len(labels), lost, won, other, tuple(classes[:_MOST_CLASSES]), flips)


def _change(label: int, labels: np.ndarray, first: np.ndarray, last: np.ndarray) -> ClassChange:
    wanted = labels == label
    right = [int((wanted & (answers == label)).sum()) for answers in (first, last)]
    f1 = [
        2 * n / max(int(wanted.sum()) + int((answers == label).sum()), 1)
        for n, answers in zip(right, (first, last), strict=True)
    ]
    return ClassChange(int(label), int(wanted.sum()), *right, *f1)
