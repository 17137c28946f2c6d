"""Distillation: the same student trained from its teacher, and from the labels alone."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from irtools.data import Dataset, is_text, load_dataset
from irtools.errors import DataError, UsageError
from irtools.frontends.students.networks.checkpoints import fingerprint, has_tokenizer, load_network
from irtools.frontends.students.networks.make_student import make_student
from irtools.frontends.students.networks.spec import CheckpointFolder, PrunedModel, StudentSpec
from irtools.frontends.students.training.data import (
    Splits,
    check_labels,
    choose_metric,
    choose_task,
    class_names,
    read_splits,
)
from irtools.frontends.students.training.loop import train
from irtools.frontends.students.training.objective import TEACHER_LOGITS, Objective, make_objective
from irtools.frontends.students.training.precision import check_precision
from irtools.frontends.students.training.results import finished, set_task, training_notes
from irtools.frontends.students.training.scoring import find_gain, outputs_of, score
from irtools.frontends.students.training.teacher import Teacher, cached_outputs, open_teacher
from irtools.frontends.students.training.workspace import TrainingFolder, processes
from irtools.model import Model
from irtools.plugins import Progress
from irtools.students import DistillRequest, DistillResult, Task, TrainedNetwork
from irtools.words import counted

__all__ = ["distill"]

_HARD = "hard"


@dataclass(frozen=True)
class _Distillation:
    """Everything that both trainings need, read and checked."""

    request: DistillRequest
    teacher: Teacher
    student: Any
    task: Task
    metric: str
    data: Splits
    teacher_data: Splits
    tokenizer: Path | None
    notes: tuple[str, ...]


def distill(request: DistillRequest, spec: StudentSpec, progress: Progress) -> DistillResult | None:
    """Train both students; see `irtools.students.StudentTrainer`."""
    if not any(weight for name, weight in request.losses.items() if name != _HARD):
        raise UsageError("no loss looks at the teacher: give one besides hard, or use irc finetune")
    check_precision(request.training.precision)
    job = _prepare(request, spec)
    with processes().main_process_first():
        test, note = _outputs(job, job.teacher_data.test, progress)
        wanted = request.losses.get("soft", 0) > 0
        known, second = _outputs(job, job.teacher_data.train, progress) if wanted else (None, None)
    _check_width(job, test)
    seed = request.training.seed
    teacher = TrainedNetwork(
        "teacher",
        None if job.teacher.network is None else job.teacher.folder,
        job.teacher.parameters,
        score(test, job.data.test, job.metric, seed),
    )
    starts = {
        "hard-label": _start(job, {_HARD: 1.0}, None),
        "distilled": _start(job, request.losses, known),
    }
    # Nothing is written before everything that can be refused is.
    workspace = TrainingFolder(request.work, _identity(job, spec), resume=request.resume)
    hard, distilled = (
        _train(job, workspace, name, start, progress) for name, start in starts.items()
    )
    if not workspace.is_main:
        return None
    networks = [load_network(_folder(found)) for found in (distilled, hard)]
    better, other = (outputs_of(network, job.data.test) for network in networks)
    gain = find_gain(better, other, job.data.test, job.metric, seed)
    told = training_notes(job.student, request.training)
    notes = [*job.notes, *told, *(n for n in dict.fromkeys((note, second)) if n)]
    return DistillResult(teacher, distilled, hard, gain, job.tokenizer, tuple(notes))


def _folder(trained: TrainedNetwork) -> Path:
    assert trained.folder is not None
    return trained.folder


def _prepare(request: DistillRequest, spec: StudentSpec) -> _Distillation:
    teacher = open_teacher(request.teacher, request.target, request.training.threads)
    student, said = make_student(spec, teacher.network, request.training.seed)
    names = _names(request, teacher, student)
    settings = dataclasses.replace(request.data, class_names=names)
    own = _own_folder(spec, teacher)
    data = read_splits(student, own, request.train, request.evaluate, settings)
    if teacher.network is not None and not _differ(own, teacher.folder, request):
        teacher_data = data
    else:
        teacher_data = _teacher_data(request, teacher, settings)
        _refuse_inner(request, teacher)
    assert data.train.labels is not None
    outputs = student.config.num_labels
    task = choose_task(request.task, data.train, outputs, teacher.problem)
    for split in (data.train, data.test):
        check_labels(split, task, outputs)
    set_task(student.config, task, names)
    return _Distillation(
        request,
        teacher,
        student,
        task,
        choose_metric(request.metric, task),
        data,
        teacher_data,
        request.data.tokenizer or (own if has_tokenizer(own) else None),
        (f"student: {said}", *data.notes),
    )


def _names(request: DistillRequest, teacher: Teacher, student: Any) -> Mapping[str, int]:
    if teacher.network is not None:
        return class_names(teacher.network.config, request.train, request.data)
    if teacher.id2label:
        return {name: number for number, name in teacher.id2label.items()}
    return class_names(student.config, request.train, request.data)


def _own_folder(spec: StudentSpec, teacher: Teacher) -> Path:
    """Where the student's tokenizer is: its own, else the teacher's."""
    match spec:
        case CheckpointFolder(folder) if has_tokenizer(folder):
            return folder
        case PrunedModel(path) if has_tokenizer(path.parent):
            return path.parent
        case _:
            return teacher.folder


def _differ(own: Path, other: Path, request: DistillRequest) -> bool:
    """Whether student and teacher read the same text with different tokenizers."""
    if own == other or request.data.tokenizer is not None or not is_text(request.train):
        return False
    if not (has_tokenizer(own) and has_tokenizer(other)):
        return False
    return (own / "tokenizer.json").read_bytes() != (other / "tokenizer.json").read_bytes()


def _teacher_data(request: DistillRequest, teacher: Teacher, settings: Any) -> Splits:
    if teacher.network is not None:
        return read_splits(
            teacher.network, teacher.folder, request.train, request.evaluate, settings
        )
    assert teacher.model is not None
    first, second = (
        load_dataset(path, teacher.model, settings) for path in (request.train, request.evaluate)
    )
    return Splits(first, second)


def _refuse_inner(request: DistillRequest, teacher: Teacher) -> None:
    inner = sorted(n for n, w in request.losses.items() if w and n not in ("soft", _HARD))
    if inner and teacher.network is not None:
        raise UsageError(
            f"the losses {', '.join(inner)} compare token by token, and student and teacher have "
            "different tokenizers; leave them out"
        )


def _identity(job: _Distillation, spec: StudentSpec) -> dict[str, object]:
    """What decides the outcome, for recognizing a training that is resumed."""
    request = job.request
    given: object = dataclasses.asdict(spec)
    match spec:
        case CheckpointFolder(folder):
            given = fingerprint(folder)
        case PrunedModel(path):
            given = Model.load(path).fingerprint()
    budget = dataclasses.replace(request.training, threads=None, save_steps=None)
    return {
        "teacher": job.teacher.sha256,
        "student": given,
        "data": [job.data.train.digest, job.data.test.digest],
        "losses": dict(request.losses),
        "temperature": request.temperature,
        "layer_map": request.layer_map,
        "relation_heads": request.relation_heads,
        "task": job.task,
        "training": dataclasses.asdict(budget),
    }


def _outputs(
    job: _Distillation, data: Dataset, progress: Progress
) -> tuple[np.ndarray, str | None]:
    return cached_outputs(job.teacher, data, job.request.cache, progress)


def _check_width(job: _Distillation, scores: np.ndarray) -> None:
    found = job.student.config.num_labels
    if found != scores.shape[1]:
        scored = counted(found, "score")
        raise DataError(f"the student gives {scored} and the teacher {scores.shape[1]}")


@dataclass(frozen=True)
class _Start:
    """A student before training, and what it will learn from."""

    student: Any
    objective: Objective
    extra: Mapping[str, np.ndarray]


def _start(job: _Distillation, weights: Mapping[str, float], known: np.ndarray | None) -> _Start:
    """Give one of the students its loss; both have the same weights to begin with."""
    student = copy.deepcopy(job.student)
    extra = {} if known is None else {TEACHER_LOGITS: known}
    return _Start(student, _objective(job, student, weights), extra)


def _train(
    job: _Distillation, workspace: TrainingFolder, name: str, start: _Start, progress: Progress
) -> TrainedNetwork:
    """Train one of the students on the common budget."""

    def run(checkpoints: Path, final: Path) -> Any:
        return train(
            start.student,
            start.objective,
            job.data.train,
            start.extra,
            job.request.training,
            checkpoints,
            final,
            progress,
            f"training the {name} student",
        )

    done = workspace.run(name, run)
    return finished(name, done, job.data.test, job.metric, job.request.training, workspace)


def _objective(job: _Distillation, student: Any, weights: Mapping[str, float]) -> Objective:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.request.training.seed)
        return make_objective(
            weights,
            job.task,
            student,
            job.teacher.network,
            temperature=job.request.temperature,
            layer_map=job.request.layer_map,
            relation_heads=job.request.relation_heads,
        )
