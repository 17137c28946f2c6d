"""Accuracy and F1, for one class per sample and for several."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from irtools.errors import DataError
from irtools.metrics.outputs import find_output
from irtools.metrics.per_sample import PerSampleMetric
from irtools.words import counted

__all__ = [
    "Accuracy",
    "F1Macro",
    "F1Micro",
    "MultilabelF1Macro",
    "MultilabelF1Micro",
    "SingleLabel",
    "SubsetAccuracy",
]

_LOGITS = ("logits", "scores", "prob", "output")
_IGNORED = -100  # The label that torch's cross entropy leaves out by default.


class SingleLabel(PerSampleMetric):
    """One class per sample, or one per token with -100 for tokens that do not count."""

    def per_sample(self, outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
        """Return (class, prediction) pairs [N, 2 T]; T = 1 unless labels are per token."""
        logits = find_output(outputs, _LOGITS)
        _check_classes(logits, labels)
        predicted = logits.argmax(axis=-1)
        pairs = np.stack([labels, predicted], axis=-1)
        return np.asarray(pairs.reshape(len(labels), -1), dtype=np.int64)

    @staticmethod
    def pairs(rows: np.ndarray) -> np.ndarray:
        """Return the (class, prediction) pairs that count, [n, 2]."""
        pairs = rows.reshape(-1, 2)
        return np.asarray(pairs[pairs[:, 0] != _IGNORED])


class Accuracy(SingleLabel):
    """Share of samples whose largest logit is that of their class."""

    name: str = "accuracy"

    def finish(self, rows: np.ndarray) -> float:
        """Return the share of right predictions."""
        pairs = self.pairs(rows)
        return float((pairs[:, 0] == pairs[:, 1]).mean()) if len(pairs) else float("nan")

    def scores(self, rows: np.ndarray) -> np.ndarray | None:
        """Return 1 where a sample's class is right; of models that label tokens None."""
        if rows.shape[1] != 2 or (rows[:, 0] == _IGNORED).any():
            return None
        return np.asarray(rows[:, 0] == rows[:, 1], np.float64)


class F1Micro(SingleLabel):
    """F1 over all decisions; equals accuracy where each sample has one class."""

    name: str = "f1-micro"

    def finish(self, rows: np.ndarray) -> float:
        """Return the micro-averaged F1."""
        return _micro(*_confusion(self.pairs(rows)))


class F1Macro(SingleLabel):
    """Mean of the F1 of each class that occurs among labels or predictions."""

    name: str = "f1-macro"

    def finish(self, rows: np.ndarray) -> float:
        """Return the macro-averaged F1."""
        return _macro(*_confusion(self.pairs(rows)))


class _MultiLabel(PerSampleMetric):
    """Several labels per sample: a logit above 0 (probability above 0.5) is a yes."""

    def per_sample(self, outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
        """Return 0/1 labels and predictions side by side, [N, 2 L]."""
        logits = find_output(outputs, _LOGITS)
        if logits.shape != labels.shape or labels.ndim != 2:
            raise DataError(
                f"multi-label metrics need 0/1 labels of the logits' shape {list(logits.shape)}, "
                f"the labels have shape {list(labels.shape)}"
            )
        return np.concatenate([labels > 0, logits > 0], axis=1).astype(np.int64)

    @staticmethod
    def halves(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return labels and predictions, [N, L] each."""
        labels, predicted = np.split(rows, 2, axis=1)
        return labels, predicted


class MultilabelF1Micro(_MultiLabel):
    """F1 over all (sample, label) decisions."""

    name: str = "multilabel-f1-micro"

    def finish(self, rows: np.ndarray) -> float:
        """Return the micro-averaged F1."""
        return _micro(*_decisions(*self.halves(rows)))


class MultilabelF1Macro(_MultiLabel):
    """Mean over the labels of their F1; a label without any yes counts 0."""

    name: str = "multilabel-f1-macro"

    def finish(self, rows: np.ndarray) -> float:
        """Return the macro-averaged F1."""
        right, found, wanted = _decisions(*self.halves(rows))
        return float(_f1(right, found, wanted).mean()) if len(rows) else float("nan")


class SubsetAccuracy(_MultiLabel):
    """Share of samples whose labels are all right."""

    name: str = "subset-accuracy"

    def finish(self, rows: np.ndarray) -> float:
        """Return the share of entirely correct samples."""
        labels, predicted = self.halves(rows)
        return float((labels == predicted).all(axis=1).mean()) if len(rows) else float("nan")

    def scores(self, rows: np.ndarray) -> np.ndarray | None:
        """Return 1 where all labels of a sample are right."""
        labels, predicted = self.halves(rows)
        return np.asarray((labels == predicted).all(axis=1), np.float64)


def _check_classes(logits: np.ndarray, labels: np.ndarray) -> None:
    if labels.dtype.kind not in "iu" or labels.shape != logits.shape[:-1]:
        raise DataError(
            f"logits of shape {list(logits.shape)} need whole-number labels of shape "
            f"{list(logits.shape[:-1])}; found {labels.dtype}{list(labels.shape)}"
            + (
                " (for several labels per sample use multilabel-f1-micro)"
                if labels.ndim == 2
                else ""
            )
        )
    outside = labels[(labels != _IGNORED) & ((labels < 0) | (labels >= logits.shape[-1]))]
    if outside.size:
        raise DataError(
            f"label {int(outside.flat[0])} is outside the model's "
            f"{counted(logits.shape[-1], 'class', 'classes')}; expected 0 to {logits.shape[-1] - 1}"
        )


def _confusion(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return right predictions, predictions and labels per class that occurs."""
    classes = int(pairs.max(initial=-1)) + 1
    found = np.bincount(pairs[:, 1], minlength=classes)
    wanted = np.bincount(pairs[:, 0], minlength=classes)
    right = np.bincount(pairs[pairs[:, 0] == pairs[:, 1], 0], minlength=classes)
    occurs = (found + wanted) > 0
    return right[occurs], found[occurs], wanted[occurs]


def _decisions(
    labels: np.ndarray, predicted: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (labels & predicted).sum(axis=0), predicted.sum(axis=0), labels.sum(axis=0)


def _f1(right: np.ndarray, found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    total = found + wanted
    return np.where(total > 0, 2.0 * right / np.maximum(total, 1), 0.0)


def _micro(right: np.ndarray, found: np.ndarray, wanted: np.ndarray) -> float:
    total = int(found.sum() + wanted.sum())
    return 2.0 * int(right.sum()) / total if total else float("nan")


def _macro(right: np.ndarray, found: np.ndarray, wanted: np.ndarray) -> float:
    return float(_f1(right, found, wanted).mean()) if len(right) else float("nan")
