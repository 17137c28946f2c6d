"""Transformers of a real shape with seeded random weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from benchmarks.prepared.exports import INPUT_NAMES


@dataclass(frozen=True)
class Architecture:
    """A randomly initialised transformers classifier.

    Attributes:
        family: `FAMILYForSequenceClassification` or `FAMILYForImageClassification` is built.
        options: arguments of its configuration.
        inputs: names of its inputs.
        eager: also export it with eager attention, as exporters did before fused attention.
    """

    family: str
    options: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = INPUT_NAMES
    eager: bool = True


_TINY = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "initializer_range": 0.1,
}
_TINY_TEXT = {**_TINY, "vocab_size": 1000}
_TINY_DISTILBERT = {
    "dim": 64,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 256,
    "initializer_range": 0.1,
    "vocab_size": 1000,
}

ARCHITECTURES: Mapping[str, Architecture] = {
    "bert-base": Architecture("Bert", {"vocab_size": 30522}),
    "distilbert": Architecture("DistilBert", {}, INPUT_NAMES[:2], eager=False),
    "vit": Architecture("ViT", {"num_labels": 1000}, ("pixel_values",), eager=False),
    "tiny-bert": Architecture("Bert", _TINY_TEXT),
    "tiny-distilbert": Architecture("DistilBert", _TINY_DISTILBERT, INPUT_NAMES[:2]),
    "tiny-roberta": Architecture(
        "Roberta",
        {**_TINY_TEXT, "max_position_embeddings": 514, "type_vocab_size": 1},
        INPUT_NAMES[:2],
    ),
    "tiny-vit": Architecture(
        "ViT", {**_TINY, "image_size": 32, "patch_size": 8, "num_labels": 10}, ("pixel_values",)
    ),
}


def random_transformer(architecture: Architecture, attention: str = "sdpa") -> Any:
    """The seeded classifier in evaluation mode.

    Biases and normalisation gains, which transformers starts at 0 and 1, get noise: equal tensors
    would be merged on export, and a lost bias of zeros would go unnoticed.
    """
    import transformers

    family = architecture.family
    task = "Image" if "pixel_values" in architecture.inputs else "Sequence"
    configuration = getattr(transformers, f"{family}Config")(
        **architecture.options, attn_implementation=attention
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}For{task}Classification")(configuration)
    perturb_vectors(model)
    return model.eval()


def perturb_vectors(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
