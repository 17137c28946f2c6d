"""Fine-tuning of causal language models on texts."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from irtools.data import Dataset, is_text, load_dataset, signature_of
from irtools.errors import DataError, UsageError
from irtools.frontends.students.networks.checkpoints import (
    fingerprint,
    has_tokenizer,
    load_network,
)
from irtools.frontends.students.training.data import choose_metric
from irtools.frontends.students.training.loop import train
from irtools.frontends.students.training.objective import Objective
from irtools.frontends.students.training.results import finished, rounding_notes
from irtools.frontends.students.training.scoring import NetworkRunner
from irtools.frontends.students.training.workspace import TrainingFolder
from irtools.metrics import Evaluation, Perplexity, evaluate
from irtools.plugins import Progress
from irtools.students import FinetuneRequest, FinetuneResult, Task, TrainedNetwork

__all__ = ["finetune_language", "is_language_model"]

_TASK: Task = "language-model"


def is_language_model(kind: Any) -> bool:
    """Whether a class of networks gives scores for the token that follows each token."""
    return bool(kind.__name__.endswith(("ForCausalLM", "LMHeadModel")))


def finetune_language(request: FinetuneRequest, progress: Progress) -> FinetuneResult | None:
    """Train all weights to guess each token from those before it.

    Raises:
        DataError: No text of two tokens or more, or ids that the network does not know.
        UsageError: Another metric than perplexity.
    """
    metric = choose_metric(request.metric, _TASK)
    if metric != Perplexity.name:
        raise UsageError(f"a language model is trained for perplexity: leave out --metric {metric}")
    folder = Path(request.base)
    network = load_network(folder)
    data, test = (
        _read(path, network, folder, request) for path in (request.train, request.evaluate)
    )
    before = _perplexity(network, test, request)
    workspace = TrainingFolder(request.work, _identity(request, data, test), resume=request.resume)

    def run(checkpoints: Path, final: Path) -> Any:
        objective = Objective({"hard": 1.0}, _TASK)
        settings = request.training
        return train(
            network, objective, data, {}, settings, checkpoints, final, progress, "training"
        )

    done = workspace.run("finetuned", run)

    def measured(trained: Any) -> Evaluation:
        return _perplexity(trained, test, request)

    found = finished("fine-tuned", done, test, metric, request.training, workspace, measured)
    if not workspace.is_main:
        return None
    base = TrainedNetwork("base", None, found.parameters, before)
    notes = (*data.notes, *rounding_notes(network, request.training.quantize))
    return FinetuneResult(found, (base,), notes=tuple(dict.fromkeys(notes)))


def _read(path: str, network: Any, folder: Path, request: FinetuneRequest) -> Dataset:
    """Read texts; the labels are their tokens, -100 at padding and at the first of each."""
    settings = request.data
    if settings.tokenizer is None and has_tokenizer(folder):
        settings = dataclasses.replace(settings, tokenizer=folder)
    if settings.tokenizer is None and is_text(path):
        raise DataError(f"text needs a tokenizer, and {folder} has no tokenizer.json")
    data = load_dataset(path, signature_of(network, folder), settings)
    labels = Perplexity().derive_labels(data.feeds)
    if labels is None or not (labels >= 0).any():
        raise DataError(f"{data.source} has no text of two tokens or more to learn from")
    if labels.max() >= network.config.vocab_size:
        raise DataError(
            f"{data.source}: token {labels.max()}, and the network knows "
            f"{network.config.vocab_size}; was the text read with another tokenizer?"
        )
    return dataclasses.replace(data, labels=labels)


def _perplexity(network: Any, test: Dataset, request: FinetuneRequest) -> Evaluation:
    # Without labels the metric makes them of the ids of each batch, which are cut to their length.
    texts = dataclasses.replace(test, labels=None)
    found = evaluate(NetworkRunner(network), texts, Perplexity(), 1, request.training.seed)
    if not math.isfinite(found.value):
        raise DataError(
            f"the perplexity on {test.source} is {found.value}: try a smaller step size"
        )
    return found


def _identity(request: FinetuneRequest, data: Dataset, test: Dataset) -> dict[str, object]:
    budget = dataclasses.replace(request.training, threads=None, save_steps=None)
    return {
        "base": fingerprint(Path(request.base)),
        "data": [data.digest, test.digest],
        "task": _TASK,
        "training": dataclasses.asdict(budget),
    }
