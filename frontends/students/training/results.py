"""From a finished training to a checkpoint and its figures."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from irtools.data import Dataset
from irtools.frontends.students.networks.checkpoints import load_network, save_network, writing
from irtools.frontends.students.networks.rounded import round_weights, rounded_layers
from irtools.frontends.students.training.precision import precision_notes
from irtools.frontends.students.training.scoring import score, trained_outputs
from irtools.frontends.students.training.workspace import Done, TrainingFolder
from irtools.metrics import Evaluation
from irtools.students import Task, TrainedNetwork, TrainingSettings
from irtools.words import counted

__all__ = ["finished", "set_task", "training_notes", "write_checkpoint"]

_PROBLEMS: Mapping[str, str] = {
    "multi-class": "single_label_classification",
    "multi-label": "multi_label_classification",
    "regression": "regression",
}


def set_task(config: Any, task: Task, names: Mapping[str, int]) -> None:
    """Write into a config what its outputs mean."""
    config.problem_type = _PROBLEMS[task]
    if len(names) == config.num_labels:
        config.id2label = {number: name for name, number in names.items()}
        config.label2id = dict(names)


def finished(
    name: str,
    done: Done,
    test: Dataset,
    metric: str,
    training: TrainingSettings,
    workspace: TrainingFolder,
    measured: Callable[[Any], Evaluation] | None = None,
) -> TrainedNetwork:
    """Return the figures of a training; processes but the main one get no figures of it.

    A network that was trained through a rounding is rounded here.

    Args:
        measured: Gives the metric of a network; None: by its scores, one row a sample.
    """
    if not workspace.is_main:
        nothing = Evaluation(metric, float("nan"), float("nan"), float("nan"), 0)
        return TrainedNetwork(name, None, None, nothing, 0, done.steps, done.seconds, done.losses)
    network = load_network(done.folder)
    if training.quantize is not None:
        round_weights(network, training.quantize)
    folder = write_checkpoint(network, workspace.folder / name / "network")
    count = sum(p.numel() for p in network.parameters())
    if measured is not None:
        found = measured(network)
    else:
        found = score(trained_outputs(network, test, name), test, metric, training.seed)
    return TrainedNetwork(name, folder, count, found, count, done.steps, done.seconds, done.losses)


def training_notes(network: Any, settings: TrainingSettings) -> tuple[str, ...]:
    """Return what a reader should know of how the weights of a result came to be."""
    notes, form = precision_notes(settings.precision), settings.quantize
    if form is None:
        return notes
    layers = counted(len(rounded_layers(network, form)), "Linear")
    keeps = "int8" if form == "int8" else "int4"
    told = f"trained through the {form} rounding of {layers}; `{keeps}` keeps these weights"
    return (*notes, told)


def write_checkpoint(network: Any, folder: Path) -> Path:
    """Write a network in place of what a stopped run may have left."""
    shutil.rmtree(folder, ignore_errors=True)
    with writing(folder):
        save_network(network, folder)
    return folder
