"""Fine-tuning of causal language models on texts."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

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
from irtools.frontends.students.training.precision import precision_notes
from irtools.frontends.students.training.results import finished, training_notes
from irtools.frontends.students.training.scoring import NetworkRunner
from irtools.frontends.students.training.workspace import Done, TrainingFolder
from irtools.metrics import Evaluation, Perplexity, evaluate
from irtools.plugins import Progress
from irtools.students import FinetuneRequest, FinetuneResult, Task, TrainedNetwork

__all__ = ["finetune_language"]

_TASK: Task = "language-model"


def finetune_language(request: FinetuneRequest, progress: Progress) -> FinetuneResult | None:
    """Train all weights, or an adapter, to guess each token from those before it.

    Raises:
        DataError: No text of two tokens or more, or ids that the network does not know.
        UsageError: Another metric than perplexity, or no layer that the adapter is for.
    """
    metric = choose_metric(request.metric, _TASK)
    if metric != Perplexity.name:
        raise UsageError(f"a language model is trained for perplexity: leave out --metric {metric}")
    folder = Path(request.base)
    network = load_network(folder)
    data, test = (
        _read(path, network, folder, request) for path in (request.train, request.evaluate)
    )
    job = _Language(request, network, data, test, progress)
    before = job.perplexity(network)
    adapter = request.adapter
    found = _in_place(job) if adapter is None or adapter.kind == "bitfit" else _adapted(job)
    if found is None:
        return None
    base = TrainedNetwork("base", None, found.result.parameters, before)
    notes = (*found.notes, *training_notes(network, request.training))
    return dataclasses.replace(
        found, stages=(base, *found.stages), notes=tuple(dict.fromkeys(notes))
    )


@dataclass(frozen=True)
class _Language:
    """Everything that the training needs, read and checked."""

    request: FinetuneRequest
    network: Any
    train_texts: Dataset
    test: Dataset
    progress: Progress

    def workspace(self) -> TrainingFolder:
        identity = _identity(self.request, self.train_texts, self.test)
        return TrainingFolder(self.request.work, identity, resume=self.request.resume)

    def train(self, network: Any, workspace: TrainingFolder, optimizer: str | None = None) -> Done:
        def run(checkpoints: Path, final: Path) -> Any:
            return train(
                network,
                Objective({"hard": 1.0}, _TASK),
                self.train_texts,
                {},
                self.request.training,
                checkpoints,
                final,
                self.progress,
                "training",
                optimizer=optimizer,
            )

        return workspace.run("finetuned", run)

    def perplexity(self, network: Any) -> Evaluation:
        return _perplexity(network, self.test, self.request)

    def logits(self, network: Any) -> np.ndarray:
        """Return the scores of all tokens of the first text, [S, V]."""
        feeds = next(iter(self.test.select(np.arange(1)).batches(1)))
        return np.asarray(NetworkRunner(network).run(feeds)["logits"][0])


def _in_place(job: _Language) -> FinetuneResult | None:
    """Train all weights, or biases alone."""
    trained = None
    if job.request.adapter is not None:
        from irtools.frontends.students.adapted import train_only_biases

        trained = train_only_biases(job.network, job.request, ())
    workspace = job.workspace()
    done = job.train(job.network, workspace)
    training = job.request.training
    found = finished(
        "fine-tuned", done, job.test, Perplexity.name, training, workspace, job.perplexity
    )
    if trained is not None:
        found = dataclasses.replace(found, trained_parameters=trained)
    return FinetuneResult(found, notes=job.train_texts.notes) if workspace.is_main else None


def _adapted(job: _Language) -> FinetuneResult | None:
    from irtools.frontends.students.adapted import AdapterJob, train_adapter

    return train_adapter(
        AdapterJob(
            job.request,
            job.network,
            (),
            job.workspace,
            job.train,
            job.logits,
            lambda network, _: job.perplexity(network),
            (*job.train_texts.notes, *precision_notes(job.request.training.precision)),
        )
    )


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
        "adapter": None if request.adapter is None else dataclasses.asdict(request.adapter),
        "training": dataclasses.asdict(budget),
    }
