"""The data and the metric that a caller gives: read, checked, and chosen where left open."""

from __future__ import annotations

import dataclasses
import os
from typing import TypeAlias

import numpy as np

from irtools.analysis.decoder import find_decoder
from irtools.data import (
    Dataset,
    DataSettings,
    are_flags,
    check_calibration,
    fit_dataset,
    load_dataset,
)
from irtools.errors import UsageError
from irtools.metrics import Metric, check_labels, load_metric
from irtools.model import Model
from irtools.plugins import is_task

__all__ = ["DataLike", "choose_metric", "read_calibration", "read_evaluation"]

DataLike: TypeAlias = "str | os.PathLike[str] | Dataset"


def read_calibration(
    source: DataLike | None, model: Model, settings: DataSettings
) -> Dataset | None:
    """Read data for ranges and refits.

    Args:
        settings: How a path is read.

    Raises:
        DataError: It does not fit the model, or nothing can be learnt from it.
        FileError: It cannot be read.
    """
    dataset = _read(source, model, settings)
    if dataset is not None:
        check_calibration(dataset)
    return dataset


def read_evaluation(
    source: DataLike | None, model: Model, settings: DataSettings
) -> Dataset | None:
    """Read data for fidelity and the metric: all of it, whatever `settings.samples` says.

    Raises:
        DataError: It does not fit the model.
        FileError: It cannot be read.
    """
    return _read(source, model, dataclasses.replace(settings, samples=None))


def choose_metric(
    wanted: str | Metric | None, evaluation: Dataset | None, data: Dataset | None, model: Model
) -> Metric | None:
    """Return the metric to judge by; None where only fidelity can be measured.

    Left open, it follows from labels that were given for evaluation: `multilabel-f1-micro` for
    rows of 0/1 where the model gives one row of scores per sample, `mse` for numbers with a point,
    else `accuracy`. For a model that writes text it is `perplexity`, which needs no labels, and for
    documents of a task the first metric of the task.

    Args:
        wanted: Name, `module:function`, a metric, or None.
        evaluation: The evaluation data that was given.
        data: What will be judged on; None: nothing was given and nothing can be drawn.

    Raises:
        UnknownNameError: No metric of that name.
        UsageError: It needs labels, and no data was given at all.
        DataError: It needs labels, and the data has none.
    """
    if wanted is None and evaluation is not None and is_task(evaluation.source):
        wanted = evaluation.source
    elif wanted is None and evaluation is not None and _writes_text(model):
        wanted = None if evaluation.synthetic else "perplexity"
    if wanted is None:
        labels = None if evaluation is None else evaluation.labels
        return None if labels is None else load_metric(_default_metric(labels, model))
    metric = load_metric(wanted) if isinstance(wanted, str) else wanted
    if data is None or (evaluation is None and data.synthetic):
        raise UsageError(
            f"metric {metric.name!r} needs data to be measured on: give evaluation data "
            "(--evaluate)"
        )
    check_labels(metric, data)
    return metric


def _writes_text(model: Model) -> bool:
    """Whether a model gives scores for the next token at every position."""
    decoder = find_decoder(model.ir)
    if decoder is not None:
        return decoder.generates
    return model.ir.metadata_props.get("task") == "text-generation"


def _default_metric(labels: np.ndarray, model: Model) -> str:
    if are_flags(labels) and _gives_rows(model):
        return "multilabel-f1-micro"
    return "mse" if labels.dtype.kind == "f" else "accuracy"


def _gives_rows(model: Model) -> bool:
    """Whether an output is [N, L]; labels of [N, S] with outputs [N, S, C] are one per token."""
    return any(
        value.shape is not None and value.shape.rank() == 2 for value in model.ir.graph.outputs
    )


def _read(source: DataLike | None, model: Model, settings: DataSettings) -> Dataset | None:
    match source:
        case None:
            return None
        case Dataset():
            return fit_dataset(source, model).with_digest()
        case _:
            return load_dataset(os.fspath(source), model, settings)
