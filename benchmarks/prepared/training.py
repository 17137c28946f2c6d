"""A plain training loop for sequence classifiers, and the R8 teacher made by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.prepared.exports import Tensors
from benchmarks.prepared.packages import minilm_checkpoint


@dataclass(frozen=True)
class Recipe:
    """How a classifier is fine-tuned: AdamW, linear warm-up, linear decay to zero."""

    epochs: int = 3
    batch: int = 32
    learning_rate: float = 1e-4
    head_factor: float = 10.0
    warmup: float = 0.1
    seed: int = 0
    threads: int = 2


def _batches(data: Tensors, order: torch.Tensor, size: int) -> Iterator[Tensors]:
    """Batches in the given order, cut to their longest row (padding is at the end)."""
    for rows in order.split(size):
        longest = int(data["attention_mask"][rows].sum(dim=1).max())
        yield {
            name: tensor[rows] if name == "labels" else tensor[rows, :longest]
            for name, tensor in data.items()
        }


def load_arrays(path: Path) -> Tensors:
    with np.load(path) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def train(
    model: nn.Module,
    head: nn.Module,
    count: int,
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    recipe: Recipe,
    lengths: torch.Tensor | None = None,
) -> None:
    """Train `model` in place.

    Args:
        head: the part of it that learns `head_factor` times as fast.
        count: rows of training data.
        loss_of: mean loss over some rows, given by number.
        lengths: length of each row [count], where rows of about one length go together.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    fresh = list(head.parameters())
    known = {id(parameter) for parameter in fresh}
    body = [parameter for parameter in model.parameters() if id(parameter) not in known]
    groups = [
        {"params": body, "lr": recipe.learning_rate},
        {"params": fresh, "lr": recipe.learning_rate * recipe.head_factor},
    ]
    optimizer = torch.optim.AdamW(groups, fused=True)
    steps = recipe.epochs * -(-count // recipe.batch)
    warmup = max(1, round(recipe.warmup * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))
    )
    model.train()
    for epoch in range(recipe.epochs):
        total = 0.0
        for rows in _in_batches(count, recipe.batch, lengths, generator):
            loss = loss_of(rows)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
            if schedule.last_epoch % 50 == 0:
                print(f"step {schedule.last_epoch} of {steps}: loss {loss.item():.4f}", flush=True)
        print(f"epoch {epoch + 1}/{recipe.epochs}: mean loss {total / count:.4f}", flush=True)
    model.eval()


def _in_batches(
    count: int, size: int, lengths: torch.Tensor | None, generator: torch.Generator
) -> Sequence[torch.Tensor]:
    order = torch.randperm(count, generator=generator)
    if lengths is None:
        return order.split(size)
    # Sorted by length, rows of one length by chance; then the batches by chance.
    batches = order[lengths[order].argsort(stable=True)].split(size)
    return [batches[i] for i in torch.randperm(len(batches), generator=generator)]


def fine_tune(model: nn.Module, data: Tensors, recipe: Recipe) -> None:
    """Train the sequence classifier `model` in place on encoded rows with labels."""

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        (batch,) = _batches(data, rows, len(rows))
        return model(**batch).loss

    train(model, model.classifier, len(data["labels"]), loss_of, recipe)


def score(model: nn.Module, data: Tensors) -> dict[str, float]:
    """Accuracy and macro recall of the sequence classifier `model` on encoded rows with labels."""
    labels = data["labels"]
    with torch.inference_mode():
        order = torch.arange(len(labels))
        predicted = torch.cat(
            [model(**batch).logits.argmax(dim=1) for batch in _batches(data, order, 64)]
        )
    hits = (predicted == labels).double()
    recalls = [hits[labels == label].mean() for label in labels.unique()]
    return {"accuracy": float(hits.mean()), "macro_recall": float(torch.stack(recalls).mean())}


def make_r8_classifier(folder: Path, data: Path, classes: Sequence[str]) -> None:
    """Fine-tune MiniLM-L6 on R8 and save the checkpoint with its tokenizer."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    recipe = Recipe()
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    source = minilm_checkpoint(data.parent)
    model = AutoModelForSequenceClassification.from_pretrained(
        source,
        id2label=dict(enumerate(classes)),
        label2id={name: label for label, name in enumerate(classes)},
    )
    fine_tune(model, load_arrays(data / "r8_train.npz"), recipe)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
