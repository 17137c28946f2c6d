"""How close the outputs of networks are to a teacher's, and the metric where there are labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from irtools.data import Dataset
from irtools.errors import DataError
from irtools.frontends.students.networks.anatomy import unit_mask
from irtools.frontends.students.training.blocks import on_device, training_device
from irtools.frontends.students.training.data import (
    check_labels,
    choose_metric,
    choose_task,
    collate,
)
from irtools.frontends.students.training.scoring import score
from irtools.metrics import Evaluation
from irtools.students import LayerwiseNetwork, TrainingSettings

__all__ = ["Comparison", "batches_of", "classifies"]


def classifies(network: Any) -> bool:
    """Whether a network gives a row of scores for each sample."""
    return type(network).__name__.endswith("Classification")


def batches_of(data: Dataset, size: int) -> Iterator[Mapping[str, Tensor]]:
    """Yield inputs without labels, cut to their longest sample."""
    for start in range(0, len(data), size):
        rows = range(start, min(start + size, len(data)))
        yield collate([{name: array[row] for name, array in data.feeds.items()} for row in rows])


class Comparison:
    """Outputs of networks over test data, next to those of a teacher.

    Args:
        teacher: Stays as it is.
        test: Labels may be missing.
        metric: None: by the labels, where there are some.
        settings: Samples that are run together, and the seed of intervals.

    Raises:
        DataError: A metric is asked for and there are no labels, or they do not fit.
    """

    def __init__(
        self, teacher: Any, test: Dataset, metric: str | None, settings: TrainingSettings
    ) -> None:
        self._teacher, self._test, self._settings = teacher, test, settings
        self._wanted = self._outputs(teacher)
        self._metric = self._chosen_metric(metric)

    def of_teacher(self) -> LayerwiseNetwork:
        """Return the row of the teacher."""
        count = _parameters(self._teacher)
        return LayerwiseNetwork("teacher", count, None, self._score(self._wanted))

    def row(self, name: str, network: Any) -> LayerwiseNetwork:
        """Return the row of a network."""
        found = self._outputs(network)
        signal = sum(float(np.square(w, dtype=np.float64).sum()) for w in self._wanted)
        pairs = zip(found, self._wanted, strict=True)
        noise = sum(float(np.square(f - w, dtype=np.float64).sum()) for f, w in pairs)
        if not np.isfinite(noise):
            raise DataError(
                f"the {name} student gives NaN or infinity: try a smaller learning rate"
            )
        kept = 10 * np.log10(signal / noise) if noise > 0 else np.inf
        return LayerwiseNetwork(name, _parameters(network), float(kept), self._score(found))

    def _outputs(self, network: Any) -> list[np.ndarray]:
        """Return scores, or hidden states of tokens, batch by batch."""
        found, device = [], training_device()
        with on_device(device, network), torch.inference_mode():
            for batch in batches_of(self._test, self._settings.batch):
                given = {name: value.to(device) for name, value in batch.items()}
                outputs = network(**given)
                first = outputs["logits"] if "logits" in outputs else outputs[0]
                if first.ndim == 3:
                    first = first[unit_mask(given, first.shape[1]).bool()]
                found.append(first.float().cpu().numpy())
        return found

    def _chosen_metric(self, wanted: str | None) -> str | None:
        """Return the metric, where there are labels that the network has scores for."""
        if self._test.labels is None or not classifies(self._teacher):
            if wanted is not None:
                raise DataError(
                    f"the metric {wanted} needs labels, and {self._test.source} has none that the "
                    "network gives scores for"
                )
            return None
        config = self._teacher.config
        task = choose_task(None, self._test, config.num_labels, config.problem_type)
        check_labels(self._test, task, config.num_labels)
        return choose_metric(wanted, task)

    def _score(self, found: Sequence[np.ndarray]) -> Evaluation | None:
        if self._metric is None:
            return None
        return score(np.concatenate(found), self._test, self._metric, self._settings.seed)


def _parameters(network: Any) -> int:
    return sum(p.numel() for p in network.parameters())
