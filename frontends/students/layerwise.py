"""Distillation block by block, on data without labels (ZeroQuant, Yao et al. 2022)."""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from irtools.data import Dataset, load_dataset, signature_of
from irtools.errors import UnsupportedError, UsageError
from irtools.files import json_text, write_text
from irtools.frontends.students.networks.anatomy import find_layers, uniform_map
from irtools.frontends.students.networks.checkpoints import (
    fingerprint,
    has_tokenizer,
    load_network,
    writing,
)
from irtools.frontends.students.networks.make_student import make_student
from irtools.frontends.students.networks.rounded import round_weights
from irtools.frontends.students.networks.spec import CheckpointFolder, PrunedModel, StudentSpec
from irtools.frontends.students.training.blocks import (
    BlockBatch,
    advance,
    captured,
    fit_block,
    on_device,
    training_device,
)
from irtools.frontends.students.training.comparison import Comparison, batches_of, classifies
from irtools.frontends.students.training.data import class_names
from irtools.frontends.students.training.precision import precision_notes
from irtools.frontends.students.training.results import write_checkpoint
from irtools.frontends.students.training.workspace import TrainingFolder, processes
from irtools.model import Model
from irtools.plugins import Progress
from irtools.students import BlockFit, LayerwiseRequest, LayerwiseResult
from irtools.words import counted

__all__ = ["layerwise"]


@dataclass(frozen=True)
class _Job:
    """Everything that the training needs, read and checked."""

    request: LayerwiseRequest
    teacher: Any
    student: Any
    taught_by: tuple[tuple[int, int], ...]
    train: Dataset
    test: Dataset
    tokenizer: Path | None
    notes: tuple[str, ...]


def layerwise(request: LayerwiseRequest, spec: StudentSpec, progress: Progress) -> LayerwiseResult:
    """Train a student block by block; see `irtools.students.StudentTrainer`."""
    if processes().num_processes > 1:
        raise UnsupportedError("blocks are trained in one process: start irc by itself")
    job = _prepare(request, spec)
    compared = Comparison(job.teacher, job.test, request.metric, request.training)
    networks = [compared.of_teacher(), compared.row("untrained", _rounded_copy(job))]
    workspace = TrainingFolder(request.work, _identity(job, spec), resume=request.resume)
    blocks = tuple(_train_blocks(job, workspace.folder, progress))
    networks.append(compared.row("layerwise", job.student))
    folder = write_checkpoint(job.student, workspace.folder / "layerwise" / "network")
    notes = (*job.notes, *precision_notes(request.training.precision), *_told(job, blocks))
    return LayerwiseResult(folder, tuple(networks), blocks, job.tokenizer, notes)


def _prepare(request: LayerwiseRequest, spec: StudentSpec) -> _Job:
    if request.training.threads is not None:
        torch.set_num_threads(request.training.threads)
    folder = Path(request.teacher)
    if folder.is_file():
        raise UsageError(
            "the teacher is an ONNX model, whose blocks nothing can look into: give its checkpoint"
        )
    teacher = load_network(folder).requires_grad_(False)
    student, said = make_student(spec, teacher, request.training.seed)
    student.requires_grad_(False)
    taught_by = _taught_by(request, teacher, student)
    own = spec.folder if isinstance(spec, CheckpointFolder) else folder
    if not has_tokenizer(own):
        own = folder
    train, test = (_read(path, teacher, own, request) for path in (request.train, request.evaluate))
    tokenizer = request.data.tokenizer or (own if has_tokenizer(own) else None)
    notes = (f"student: {said}", *dict.fromkeys((*train.notes, *test.notes)))
    return _Job(request, teacher, student, taught_by, train, test, tokenizer, notes)


def _taught_by(
    request: LayerwiseRequest, teacher: Any, student: Any
) -> tuple[tuple[int, int], ...]:
    """Return the blocks of the teacher, first and last, that each block of the student stands for.

    Raises:
        UsageError: A map that does not fit, or other widths.
        UnsupportedError: One of them has no list of blocks.
    """
    (_, own), (_, other) = find_layers(student), find_layers(teacher)
    widths = student.config.hidden_size, teacher.config.hidden_size
    if widths[0] != widths[1]:
        raise UsageError(
            f"blocks of the student have the width {widths[0]} and those of the teacher "
            f"{widths[1]}: their outputs cannot be compared; leave out --layerwise"
        )
    last = request.layer_map or uniform_map(len(own), len(other))
    rising = all(a < b for a, b in zip((-1, *last), last, strict=False))
    if len(last) != len(own) or not rising or last[-1] != len(other) - 1:
        raise UsageError(
            f"layer-map {','.join(map(str, last))} does not fit: {counted(len(own), 'number')} "
            f"that rise to {len(other) - 1}, the teacher's last block, are expected"
        )
    first = (0, *(place + 1 for place in last[:-1]))
    return tuple(zip(first, last, strict=True))


def _read(path: str, network: Any, folder: Path, request: LayerwiseRequest) -> Dataset:
    """Read data; labels may be missing."""
    settings = request.data
    if settings.tokenizer is None and has_tokenizer(folder):
        settings = dataclasses.replace(settings, tokenizer=folder)
    names = class_names(network.config, path, settings) if classifies(network) else {}
    settings = dataclasses.replace(settings, class_names=names)
    return load_dataset(path, signature_of(network, folder), settings)


def _identity(job: _Job, spec: StudentSpec) -> dict[str, object]:
    given: object = dataclasses.asdict(spec)
    match spec:
        case CheckpointFolder(folder):
            given = fingerprint(folder)
        case PrunedModel(path):
            given = Model.load(path).fingerprint()
    return {
        "layerwise": job.taught_by,
        "teacher": fingerprint(Path(job.request.teacher)),
        "student": given,
        "data": [job.train.digest, job.test.digest],
        "training": dataclasses.asdict(dataclasses.replace(job.request.training, threads=None)),
    }


def _rounded_copy(job: _Job) -> Any:
    """Return the student as it is without any training: its blocks rounded and no more."""
    untrained = copy.deepcopy(job.student)
    _round(job, find_layers(untrained)[1])
    return untrained


def _round(job: _Job, blocks: Sequence[nn.Module]) -> None:
    form = job.request.training.quantize
    if form is not None:
        for block in blocks:
            round_weights(block, form)


def _train_blocks(job: _Job, folder: Path, progress: Progress) -> Iterator[BlockFit]:
    """Train the blocks in order; what a stopped run has trained is taken as it is."""
    (name, own), (_, other) = find_layers(job.student), find_layers(job.teacher)
    device = training_device()
    batches = _captured(job, device, progress)
    for number, (block, (first, last)) in enumerate(zip(own, job.taught_by, strict=True)):
        progress.step("training block by block", number, len(own))
        places = range(first, last + 1)
        with on_device(device, *(other[place] for place in places)):
            wanted = [advance([other[p] for p in places], places, batch) for batch in batches]
        kept = folder / f"block-{number:03}"
        if (found := _known(kept, block)) is None:
            started = time.monotonic()
            with on_device(device, block):
                seed = job.request.training.seed + number
                fit = fit_block(block, first, batches, wanted, job.request.training, seed)
            _round(job, [block])
            seconds = time.monotonic() - started
            found = BlockFit(
                f"{name}.{number}", (first, last), fit.before, fit.after, fit.steps, seconds
            )
            _keep(kept, block, found)
        yield found
        for batch, hidden in zip(batches, wanted, strict=True):
            batch.hidden = hidden


def _captured(job: _Job, device: torch.device, progress: Progress) -> list[BlockBatch]:
    found = []
    with on_device(device, job.teacher):
        total = -(-len(job.train) // job.request.training.batch)
        for number, batch in enumerate(batches_of(job.train, job.request.training.batch)):
            progress.step("hidden states of the teacher", number, total)
            found.append(captured(job.teacher, batch))
    return found


def _known(path: Path, block: nn.Module) -> BlockFit | None:
    """Return what a stopped run made of a block, and give it its weights."""
    note = path.with_suffix(".json")
    if not note.is_file():
        return None
    block.load_state_dict(load_file(path.with_suffix(".safetensors")))
    told = json.loads(note.read_text(encoding="utf-8"))
    return BlockFit(**{**told, "taught_by": tuple(told["taught_by"])})


def _keep(path: Path, block: nn.Module, found: BlockFit) -> None:
    with writing(path.parent):
        save_file(
            {name: tensor.contiguous() for name, tensor in block.state_dict().items()},
            path.with_suffix(".safetensors"),
        )
    write_text(path.with_suffix(".json"), json_text(dataclasses.asdict(found)))


def _told(job: _Job, blocks: Sequence[BlockFit]) -> Iterator[str]:
    kept = sum(fit.steps > 0 and fit.after == fit.before for fit in blocks)
    if kept:
        yield f"{counted(kept, 'block')} stayed as before: training made the error no smaller"
    form = job.request.training.quantize
    if form is not None:
        keeps = "int8" if form == "int8" else "int4"
        yield (
            f"the Linear layers of {counted(len(blocks), 'block')} were trained through the {form} "
            f"rounding; `{keeps}` keeps these weights, and rounds those outside of blocks itself"
        )
