"""Checkpoints of networks in their real size with drawn weights, where no package has real ones.

Each gets a real tokenizer of its kind, or how its images are read, so that real data goes in: the
word pieces of MiniLM (30,522, BERT's own), or the byte-level BPE of SmolLM2 (49,152) where the
original has 50,257 or 50,265 tokens of the same form.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.prepared.packages import cached
from benchmarks.prepared.transformer import perturb_vectors

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
_CENTRED = {
    "size": {"height": 224, "width": 224},
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}
_BPE = {"vocab_size": 49152, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}


@dataclass(frozen=True)
class Shape:
    """A network of Transformers with drawn weights.

    Attributes:
        kind: Its class.
        options: What differs from the defaults of its configuration.
        tokens: The checkpoint whose tokenizer it gets.
        images: Its `preprocessor_config.json`; empty: the usual one of ImageNet.
    """

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    tokens: str | None = None
    images: Mapping[str, Any] = field(default_factory=dict)


SHAPES: Mapping[str, Shape] = {
    "bert-base-uncased": Shape("BertForSequenceClassification", {"num_labels": 8}, "minilm"),
    "roberta-base": Shape(
        "RobertaForSequenceClassification",
        {
            **_BPE,
            "num_labels": 8,
            # Positions start after the number of the padding token.
            "max_position_embeddings": 515,
            "type_vocab_size": 1,
        },
        "smollm2",
    ),
    "distilbert-base": Shape("DistilBertForSequenceClassification", {"num_labels": 8}, "minilm"),
    "gpt2": Shape("GPT2LMHeadModel", _BPE, "smollm2"),
    "t5-small": Shape("T5ForConditionalGeneration", {"decoder_start_token_id": 0}, "minilm"),
    "whisper-tiny": Shape(
        "WhisperForConditionalGeneration",
        {
            "d_model": 384,
            "encoder_layers": 4,
            "decoder_layers": 4,
            "encoder_attention_heads": 6,
            "decoder_attention_heads": 6,
            "encoder_ffn_dim": 1536,
            "decoder_ffn_dim": 1536,
        },
    ),
    "vit-base": Shape("ViTForImageClassification", {"num_labels": 1000}, images=_CENTRED),
    "resnet-50": Shape("ResNetForImageClassification", {"num_labels": 1000}),
}


def prepare_shape(name: str, cache: Path) -> Path:
    """Make a checkpoint folder with drawn weights and return it."""
    shape = SHAPES[name]
    return cached(cache / name / "checkpoint", lambda path: _write(path, shape, cache))


def _write(folder: Path, shape: Shape, cache: Path) -> None:
    import transformers

    kind = getattr(transformers, shape.kind)
    torch.manual_seed(0)
    model = kind(kind.config_class(**shape.options))
    _settle_batch_norms(model)
    perturb_vectors(model)
    model.eval().save_pretrained(folder)
    if shape.tokens is not None:
        for name in _TOKENIZER:
            shutil.copyfile(cache / shape.tokens / "checkpoint" / name, folder / name)
    if shape.images:
        text = json.dumps(shape.images, indent=1)
        (folder / "preprocessor_config.json").write_text(f"{text}\n", encoding="utf-8")


def _settle_batch_norms(model: nn.Module) -> None:
    """Give batch normalisations the statistics that their inputs have; they start at 0 and 1."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    for norm in norms:
        norm.momentum = None
    with torch.inference_mode():
        model.train()(torch.randn(16, 3, 224, 224))
