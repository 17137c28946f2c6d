"""Fine-tuning: every weight, or an adapter that is merged afterwards."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.activations import ACT2FN

from irtools.errors import UsageError
from irtools.frontends.students.language import finetune_language
from irtools.frontends.students.networks import checkpoints
from irtools.frontends.students.networks.anatomy import is_language_model
from irtools.frontends.students.training.data import (
    Splits,
    check_labels,
    choose_metric,
    choose_task,
    class_names,
    num_outputs,
    read_splits,
)
from irtools.frontends.students.training.loop import train
from irtools.frontends.students.training.objective import Objective
from irtools.frontends.students.training.precision import check_precision, precision_notes
from irtools.frontends.students.training.results import (
    finished,
    set_task,
    training_notes,
)
from irtools.frontends.students.training.scoring import score, trained_outputs
from irtools.frontends.students.training.workspace import Done, TrainingFolder
from irtools.plugins import Progress
from irtools.sources import check_activation
from irtools.students import FinetuneRequest, FinetuneResult, Task
from irtools.words import counted

__all__ = ["finetune"]


@dataclass(frozen=True)
class _Finetuning:
    """Everything that the training needs, read and checked."""

    request: FinetuneRequest
    network: Any
    fresh: tuple[str, ...]
    task: Task
    metric: str
    data: Splits
    notes: tuple[str, ...]


def finetune(request: FinetuneRequest, progress: Progress) -> FinetuneResult | None:
    """Train a network; see `irtools.students.StudentTrainer`."""
    check_precision(request.training.precision)
    folder = Path(request.base)
    kind = checkpoints.network_class(checkpoints.load_config(folder), folder)
    if request.task == "language-model":
        if not is_language_model(kind):
            raise UsageError(f"{folder} is a {kind.__name__}, and no causal language model")
        return finetune_language(request, progress)
    job = _prepare(request)
    if request.adapter is None:
        return _whole(job, progress)
    return _biases(job, progress) if request.adapter.kind == "bitfit" else _adapted(job, progress)


def _prepare(request: FinetuneRequest) -> _Finetuning:
    folder = Path(request.base)
    config = checkpoints.load_config(folder)
    kind = checkpoints.network_class(config, folder)
    has_head = kind.__name__.endswith("Classification")
    names = class_names(
        config if has_head and _are_named(config) else None, request.train, request.data
    )
    settings = dataclasses.replace(request.data, class_names=names)
    data = read_splits(
        _bare(kind, config, folder), folder, request.train, request.evaluate, settings
    )
    assert data.train.labels is not None
    known = config.num_labels if has_head else None
    problem = config.problem_type if has_head else None
    task = choose_task(request.task, data.train, known, problem)
    outputs = num_outputs(task, data.train.labels, names)
    if has_head and known is not None and known >= outputs and task == "multi-class":
        outputs = known
    for split in (data.train, data.test):
        check_labels(split, task, outputs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.training.seed)
        network, fresh = checkpoints.load_classifier(folder, outputs, names)
    set_task(network.config, task, names)
    new = f"a new head for {counted(outputs, 'output')}"
    said = new if fresh else f"the head of {folder} is kept"
    metric = choose_metric(request.metric, task)
    # A metric for other outputs is reported before the training, not after it.
    score(np.zeros((len(data.test), outputs), np.float32), data.test, metric, 0)
    return _Finetuning(request, network, fresh, task, metric, data, (said, *data.notes))


def _are_named(config: Any) -> bool:
    return not all(str(name).startswith("LABEL_") for name in config.id2label.values())


def _bare(kind: Any, config: Any, folder: Path) -> Any:
    """Return a network without weights, for reading its signature."""
    try:
        with torch.device("meta"):
            return kind(copy.deepcopy(config))
    except KeyError as error:
        check_activation(folder, config, error, ACT2FN)
        raise


def _identity(job: _Finetuning) -> dict[str, object]:
    budget = dataclasses.replace(job.request.training, threads=None, save_steps=None)
    adapter = job.request.adapter
    return {
        "base": checkpoints.fingerprint(Path(job.request.base)),
        "adapter": None if adapter is None else dataclasses.asdict(adapter),
        "data": [job.data.train.digest, job.data.test.digest],
        "task": job.task,
        "training": dataclasses.asdict(budget),
    }


def _workspace(job: _Finetuning) -> TrainingFolder:
    # Made last: nothing is written before everything that can be refused is.
    return TrainingFolder(job.request.work, _identity(job), resume=job.request.resume)


def _train(
    job: _Finetuning,
    network: Any,
    workspace: TrainingFolder,
    progress: Progress,
    optimizer: str | None = None,
) -> Done:
    def run(folder: Path, final: Path) -> Any:
        return train(
            network,
            Objective({"hard": 1.0}, job.task),
            job.data.train,
            {},
            job.request.training,
            folder,
            final,
            progress,
            "training",
            optimizer=optimizer,
        )

    return workspace.run("finetuned", run)


def _whole(job: _Finetuning, progress: Progress) -> FinetuneResult | None:
    workspace = _workspace(job)
    done = _train(job, job.network, workspace, progress)
    training = job.request.training
    found = finished("fine-tuned", done, job.data.test, job.metric, training, workspace)
    notes = (*job.notes, *training_notes(job.network, training))
    return FinetuneResult(found, notes=notes) if workspace.is_main else None


def _biases(job: _Finetuning, progress: Progress) -> FinetuneResult | None:
    """Train biases where they are."""
    from irtools.frontends.students.adapted import train_only_biases

    count = train_only_biases(job.network, job.request, job.fresh)
    found = _whole(job, progress)
    if found is None:
        return None
    result = dataclasses.replace(found.result, trained_parameters=count)
    return dataclasses.replace(found, result=result)


def _adapted(job: _Finetuning, progress: Progress) -> FinetuneResult | None:
    from irtools.frontends.students.adapted import AdapterJob, train_adapter

    def trained(network: Any, workspace: TrainingFolder, optimizer: str | None) -> Done:
        return _train(job, network, workspace, progress, optimizer)

    return train_adapter(
        AdapterJob(
            job.request,
            job.network,
            job.fresh,
            lambda: _workspace(job),
            trained,
            lambda network: _logits(job, network),
            lambda _, logits: _score(job, logits),
            (*job.notes, *precision_notes(job.request.training.precision)),
        )
    )


def _logits(job: _Finetuning, network: Any) -> np.ndarray:
    return trained_outputs(network, job.data.test, "fine-tuned")


def _score(job: _Finetuning, logits: np.ndarray) -> Any:
    return score(logits, job.data.test, job.metric, job.request.training.seed)
