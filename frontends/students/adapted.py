"""Training an adapter over a frozen network, and merging it: alike for every task."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from irtools.errors import UsageError
from irtools.frontends.students.networks import adapters
from irtools.frontends.students.networks.anatomy import head_names
from irtools.frontends.students.training.results import write_checkpoint
from irtools.frontends.students.training.workspace import Done, TrainingFolder
from irtools.metrics import Evaluation
from irtools.students import FinetuneRequest, FinetuneResult, TrainedNetwork

__all__ = ["AdapterJob", "train_adapter", "train_only_biases"]

_PAGED_OPTIMIZER = "paged_adamw_32bit"


@dataclass(frozen=True)
class AdapterJob:
    """What the training of an adapter needs, read and checked.

    Attributes:
        request: What was asked for, with an adapter.
        network: The base.
        fresh: Its modules with drawn weights.
        workspace: Makes the folder; called when everything that can be refused was.
        train: Trains a network in a folder, with an optimizer by name or the usual one.
        outputs: Outputs of a network on test data, for comparing two.
        measured: The metric of a network whose `outputs` are known.
        notes: What is to be said first.
    """

    request: FinetuneRequest
    network: Any
    fresh: tuple[str, ...]
    workspace: Callable[[], TrainingFolder]
    train: Callable[[Any, TrainingFolder, str | None], Done]
    outputs: Callable[[Any], np.ndarray]
    measured: Callable[[Any, np.ndarray], Evaluation]
    notes: tuple[str, ...]


def train_adapter(job: AdapterJob) -> FinetuneResult | None:
    """Train an adapter and merge it; None in processes that write nothing.

    Raises:
        UsageError: The network has no layer that it is for.
    """
    settings = job.request.adapter
    assert settings is not None
    in_nf4 = settings.kind == "qlora"
    real = in_nf4 and adapters.uses_bitsandbytes()
    if real and job.fresh:
        raise UsageError(
            "QLoRA with bitsandbytes needs a base that has its head: fine-tune the head first, or "
            "use --adapter lora"
        )
    layers = adapters.linear_names(job.network, job.fresh)
    make_base, figures = _base_maker(job, layers, in_nf4=in_nf4, real=real)
    trained = adapters.attach(make_base(), settings, job.fresh, job.request.training.seed)
    count = sum(p.numel() for p in trained.parameters() if p.requires_grad)
    workspace = job.workspace()
    done = job.train(trained, workspace, _PAGED_OPTIMIZER if real else None)
    if not workspace.is_main:
        return None
    wrapped = adapters.wrapped(make_base(), done.folder)
    before = job.outputs(wrapped)
    stages = [
        TrainedNetwork("adapter on its base", None, None, job.measured(wrapped, before), count)
    ]
    merged = adapters.merge(_dequantized(make_base()), done.folder)
    outputs = job.outputs(merged)
    figures["merge-relative-error"] = _relative(outputs, before)
    folder = write_checkpoint(merged, workspace.folder / "finetuned" / "network")
    result = TrainedNetwork(
        "merged",
        folder,
        sum(p.numel() for p in merged.parameters()),
        job.measured(merged, outputs),
        count,
        done.steps,
        done.seconds,
        done.losses,
    )
    if in_nf4:
        again = copy.deepcopy(merged)
        figures["requantized-weight-error"] = adapters.round_to_nf4(again, layers)
        found = job.measured(again, job.outputs(again))
        stages.append(TrainedNetwork("merged, in NF4 again", None, None, found))
    notes = (*job.notes, *((adapters.NF4_SIMULATED,) if in_nf4 and not real else ()))
    kept = _keep_adapter(done.folder, workspace.folder / "finetuned" / "adapter")
    return FinetuneResult(result, tuple(stages), kept, figures, notes)


def train_only_biases(network: Any, request: FinetuneRequest, fresh: tuple[str, ...]) -> int:
    """Freeze all but biases and the head of a task, in place: nothing is merged.

    Returns:
        How many parameters are trained.

    Raises:
        UsageError: There are no biases.
    """
    assert request.adapter is not None
    names = adapters.chosen_names(network, request.adapter, fresh)
    adapters.train_biases(network, names, (*adapters.trained_whole(network), *fresh))
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def _base_maker(
    job: AdapterJob, layers: tuple[str, ...], *, in_nf4: bool, real: bool
) -> tuple[Callable[[], Any], dict[str, float]]:
    """Return what makes the frozen base again, and the error of its quantization."""
    if real:
        # Of a language model the library itself leaves the last layer out.
        heads = head_names(job.network)
        folder, kind = Path(job.request.base), type(job.network)
        return (
            lambda: adapters.open_bitsandbytes(
                kind, folder, copy.deepcopy(job.network.config), heads
            )
        ), {}
    base = copy.deepcopy(job.network)
    figures = {"nf4-weight-error": adapters.round_to_nf4(base, layers)} if in_nf4 else {}
    return (lambda: copy.deepcopy(base)), figures


def _dequantized(network: Any) -> Any:
    """Return a base in float32; one in 4 bits as the numbers that its codes stand for."""
    if getattr(network, "is_quantized", False):
        return network.dequantize().float()
    return network


def _keep_adapter(folder: Path, place: Path) -> Path:
    """Copy what peft reads out of the trainer's folder."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for path in sorted(folder.glob("adapter_*")):
        shutil.copyfile(path, place / path.name)
    return place


def _relative(found: np.ndarray, wanted: np.ndarray) -> float:
    norm = float(np.linalg.norm(wanted)) or 1.0
    return float(np.linalg.norm(found.astype(np.float64) - wanted)) / norm
