"""Training and test data for a network: tokenized, checked against it, and in batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from irtools.data import (
    Dataset,
    DataSettings,
    cut_columns,
    find_columns,
    is_text,
    load_dataset,
    number_classes,
    padding_mask,
    signature_of,
)
from irtools.errors import DataError
from irtools.frontends.students.networks.checkpoints import has_tokenizer
from irtools.metrics import load_metric
from irtools.students import Task
from irtools.words import counted

__all__ = [
    "Rows",
    "Splits",
    "check_labels",
    "choose_task",
    "class_names",
    "collate",
    "choose_metric",
    "num_outputs",
    "read_splits",
]

_METRICS: Mapping[Task, str] = {
    "multi-class": "accuracy",
    "multi-label": "multilabel-f1-micro",
    "regression": "mse",
    "language-model": "perplexity",
}


@dataclass(frozen=True)
class Splits:
    """Training and test data, both with labels."""

    train: Dataset
    test: Dataset

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know of either."""
        return tuple(dict.fromkeys((*self.train.notes, *self.test.notes)))


def read_splits(
    network: Any, folder: Path | None, train: str, test: str, settings: DataSettings
) -> Splits:
    """Read both splits for a network.

    Args:
        folder: The network's checkpoint, whose tokenizer is used unless another is given.

    Raises:
        DataError: No labels, no rows, no tokenizer, or ids that the network does not know.
        FileError: A file cannot be read.
    """
    if settings.tokenizer is None and has_tokenizer(folder):
        settings = dataclasses.replace(settings, tokenizer=folder)
    if settings.tokenizer is None and folder is not None and is_text(train):
        raise DataError(
            f"text needs a tokenizer, and {folder} has no tokenizer.json; put it there, or give "
            "--tokenizer"
        )
    signature = signature_of(network, folder)
    first, second = (load_dataset(path, signature, settings) for path in (train, test))
    for data in (first, second):
        if data.labels is None:
            raise DataError(
                f"{data.source} has no labels (a column 'label'), and training needs them"
            )
        _check_ids(data, network.config)
    return Splits(first, second)


def _check_ids(data: Dataset, config: Any) -> None:
    ids = data.feeds.get("input_ids")
    if ids is None:
        return
    rows = int(config.vocab_size)
    if not 0 <= ids.min() <= ids.max() < rows:
        raise DataError(
            f"{data.source}: token ids from {ids.min()} to {ids.max()}, and the network knows "
            f"{rows}; was the text read with another tokenizer?"
        )


def class_names(config: Any, train: str, settings: DataSettings) -> Mapping[str, int]:
    """Return class name to number: as given, as the config says, or as the training data has them.

    Args:
        config: Config of a network with names of its own, or None for a fresh head.
    """
    if settings.class_names:
        return settings.class_names
    if config is not None:
        return {str(name): int(number) for number, name in config.id2label.items()}
    return number_classes(Path(train), settings.label_column) if is_text(train) else {}


def choose_task(
    wanted: Task | None, data: Dataset, outputs: int | None, problem: str | None
) -> Task:
    """Decide what the labels mean.

    Args:
        wanted: What the caller says; None: rows of 0/1 are several labels, numbers with a point
            are targets, as are whole numbers for a network of one output; else classes.
        outputs: Scores of the network; None for a fresh head.
        problem: `problem_type` of whatever was trained before; None: not known.

    Raises:
        DataError: One class per sample, for what was trained for several labels.
    """
    if wanted is not None:
        return wanted
    labels = data.labels
    assert labels is not None
    if labels.dtype.kind == "f":
        return "regression"
    if labels.ndim == 2:
        return "multi-label" if np.isin(labels, (0, 1)).all() else "regression"
    if outputs == 1:
        return "regression"
    if problem == "multi_label_classification":
        raise DataError(
            f"{data.source}: one class per sample, and the network was trained for several "
            "labels (`problem_type`): give lists of labels, or --task multi-class"
        )
    return "multi-class"


def num_outputs(task: Task, labels: np.ndarray, names: Mapping[str, int]) -> int:
    """Return how many scores a head for these labels gives."""
    if task == "multi-class":
        return max(int(labels.max()) + 1, len(names), 2)
    return labels.shape[1] if labels.ndim == 2 else 1


def check_labels(data: Dataset, task: Task, outputs: int) -> None:
    """Refuse labels that a network of `outputs` scores cannot have.

    Raises:
        DataError: Names the sample, the label and what was expected.
    """
    assert task in get_args(Task) and data.labels is not None
    labels = data.labels
    if task == "multi-class":
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise DataError(
                f"{data.source}: one whole number per sample is expected for multi-class, found "
                f"{labels.dtype}{list(labels.shape)}"
            )
        _refuse(
            data,
            (labels < 0) | (labels >= outputs),
            f"outside the {counted(outputs, 'class', 'classes')}",
        )
        return
    width = labels.shape[1] if labels.ndim == 2 else 1
    if width != outputs:
        raise DataError(
            f"{data.source}: {counted(width, 'label')} per sample, and the network gives "
            f"{counted(outputs, 'score')}"
        )
    if task == "multi-label":
        _refuse(data, ~np.isin(labels, (0, 1)), "neither 0 nor 1, as multi-label requires")
    else:
        _refuse(data, ~np.isfinite(labels), "no finite number")


def _refuse(data: Dataset, wrong: np.ndarray, why: str) -> None:
    assert data.labels is not None
    if wrong.any():
        place = tuple(np.argwhere(wrong)[0])
        raise DataError(
            f"{data.source}: label {data.labels[place]} of sample {place[0] + 1} is {why}"
        )


def choose_metric(wanted: str | None, task: Task) -> str:
    """Return the name of the metric: the one that goes with a task where none is wanted.

    Raises:
        UnknownNameError: There is none of that name.
    """
    chosen = wanted or _METRICS[task]
    load_metric(chosen)
    return chosen


class Rows(torch.utils.data.Dataset):  # type: ignore[misc]
    """A dataset as torch reads it: one mapping of arrays per sample.

    Args:
        data: Inputs and labels.
        extra: Further arrays by name, samples along axis 0.
    """

    def __init__(self, data: Dataset, extra: Mapping[str, np.ndarray]) -> None:
        assert data.labels is not None
        self._arrays = {**data.feeds, "labels": data.labels, **extra}
        self._length = len(data)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        return {name: array[number] for name, array in self._arrays.items()}


def collate(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """Make a batch, cut to its longest sample where padding is at the end."""
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    inputs = {name: a for name, a in batch.items() if a.ndim == 2 and a.dtype.kind in "iu"}
    inputs.pop("labels", None)
    mask = padding_mask(inputs)
    if mask is not None and mask.any():
        length = int(np.flatnonzero(mask.any(axis=0))[-1]) + 1
        batch |= cut_columns(inputs, find_columns(inputs, {}), length)
    return {name: torch.from_numpy(array) for name, array in batch.items()}
