"""Metrics of lm-evaluation-harness, computed from the scores that a model gives to tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from irtools.data import IGNORED, LABELS, checksum, read_task
from irtools.errors import DataError, UnknownNameError
from irtools.metrics.language import log_likelihoods
from irtools.metrics.outputs import find_output
from irtools.metrics.per_sample import PerSampleMetric
from irtools.plugins import TaskName, suggest

__all__ = ["HarnessMetric"]


class HarnessMetric(PerSampleMetric):
    """A metric of a task; a sample is a document with all that is asked about it.

    The documents are its evaluation data: see `data`. Answers are computed as lm_eval's `HFLM`
    does, and the task's own functions make the figure of them, so it is lm_eval's within the
    rounding of the logits. Its interval is over documents.

    Args:
        text: `lm-eval:PATH[:METRIC]`.

    Raises:
        IrtoolsError: As `read_task`.
        UnknownNameError: The task has no such metric.
    """

    def __init__(self, text: str) -> None:
        named = TaskName.parse(text)
        self._task = read_task(text)
        known = self._task.task.higher_is_better()
        metric = named.metric or next(iter(known))
        if metric not in known:
            raise UnknownNameError(
                f"{named} has no metric {metric!r}{suggest(metric, known)} (it has "
                f"{', '.join(known)})"
            )
        self.name = text
        self.larger_is_better = bool(known[metric])
        self.data = str(named)
        self._metric = metric
        self._joined: Callable[[list[Any]], Any] = self._task.task.aggregation()[metric]

    def takes(self, labels: np.ndarray) -> bool:
        """Whether labels are those of the task's documents."""
        return labels.ndim == 3 and labels.shape[-1] > LABELS and self._are_own(labels)

    def _are_own(self, labels: np.ndarray) -> bool:
        requests = self._task.requests
        firsts = labels[:, 0, :LABELS].tolist()
        return all(
            0 <= number < len(requests) and checksum(requests[number][0].doc) == mark
            for number, mark, _ in firsts
        )

    def per_sample(self, outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
        """Return what the metric keeps of one document, [1, k].

        Args:
            outputs: With logits [R, S, V] of the rows of its requests.
            labels: [1, R', 3 + S'], as `Dataset.labels` has them.
        """
        logits = find_output(outputs, ("logits", "scores", "output"))
        used = labels[0][labels[0, :, 0] >= 0]
        if logits.ndim != 3 or len(labels) != 1 or len(logits) != len(used):
            raise DataError(
                f"{self.data} needs logits [{len(used)},S,V] of one document; found "
                f"{list(logits.shape)}: was the model exported with the last logits alone?"
            )
        document = int(used[0, 0])
        answers: dict[int, list[tuple[float, bool]]] = {}
        for row, label in zip(logits, used, strict=True):
            found = self._answer(row, label[LABELS:])
            answers.setdefault(int(label[2]), []).append(found)
        asked = self._task.requests[document]
        whole = asked[0].request_type.endswith("rolling")
        kept = self._task.results(
            document,
            [sum(x for x, _ in one) if whole else one[0] for _, one in sorted(answers.items())],
        )
        return np.array([self._numbers(kept)], np.float64)

    def _answer(self, logits: np.ndarray, labels: np.ndarray) -> tuple[float, bool]:
        """Return the log-likelihood of the tokens in nats, and whether each is the likeliest."""
        places = np.flatnonzero(labels != IGNORED)
        if len(places) and places[-1] >= len(logits):
            raise DataError(
                f"{self.data} needs logits at {places[-1] + 1} positions; found {len(logits)}: "
                "was the model exported with the last logits alone?"
            )
        tokens = labels[places]
        likely = bool((logits[places].argmax(axis=-1) == tokens).all())
        return float(log_likelihoods(logits, places, tokens).sum()), likely

    def _numbers(self, kept: Mapping[str, Any]) -> list[float]:
        value = kept.get(self._metric)
        numbers: list[Any] = list(value) if isinstance(value, tuple | list) else [value]
        if not all(isinstance(one, int | float | np.number | np.bool_) for one in numbers):
            raise DataError(
                f"{self.data}: metric {self._metric!r} keeps {value!r} of a document, which is "
                "not a number"
            )
        return [float(one) for one in numbers]

    def finish(self, rows: np.ndarray) -> float:
        """Return the figure as the task joins its documents."""
        if not len(rows):
            return float("nan")
        if self._is_mean:
            return float(rows[:, 0].mean())
        items = rows[:, 0].tolist() if rows.shape[1] == 1 else [tuple(row) for row in rows.tolist()]
        try:
            return float(self._joined(items))
        except Exception as error:  # Code of the task's may raise anything.
            raise self._task.failed(error) from error

    def scores(self, rows: np.ndarray) -> np.ndarray | None:
        """Return the score of each document where the figure is their mean."""
        if not self._is_mean or ((rows < 0) | (rows > 1)).any():
            return None
        found: np.ndarray = rows[:, 0]
        return found

    @property
    def _is_mean(self) -> bool:
        from lm_eval.api.metrics import mean

        return self._joined is mean
