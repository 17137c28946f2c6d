"""A tiny trained-looking teacher with a real tokenizer, and data that can be learnt."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from irtools.plugins import NullProgress
from irtools.students import DistillRequest, TrainingSettings

WORDS = ("the", "a", "new", "old", "of", "in", "market", "report", "said", "will")
TOPICS = {"sport": ("ball", "goal"), "trade": ("bank", "share"), "crude": ("oil", "barrel")}
QUICK = TrainingSettings(epochs=2, batch=8, learning_rate=5e-3)


def _write_tokenizer(folder: Path) -> None:
    """Write a word-level tokenizer that adds [CLS] and [SEP]."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = [*special, *WORDS, *(word for pair in TOPICS.values() for word in pair)]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]"}))


def _make_bert(folder: Path, *, layers: int = 3, hidden: int = 32, seed: int = 0, labels: int = 3):
    """Write a random BERT classifier with a tokenizer; returns the network."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(seed)
    names = dict(enumerate(TOPICS)) if labels == 3 else {n: f"tag{n}" for n in range(labels)}
    config = BertConfig(
        vocab_size=40,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        # Larger than usual: the layers of a random network must do something.
        initializer_range=0.2,
        id2label=names,
        label2id={name: number for number, name in names.items()},
    )
    network = BertForSequenceClassification(config).eval()
    network.save_pretrained(folder)
    _write_tokenizer(folder)
    return network


def _sentence(rng: random.Random, topics: list[str]) -> str:
    words = rng.choices(WORDS, k=rng.randint(3, 8)) + [rng.choice(TOPICS[t]) for t in topics]
    rng.shuffle(words)
    return " ".join(words)


def _write_rows(path: Path, count: int, label: Callable[[list[str]], object], seed: int) -> Path:
    """Write rows whose words show their topics."""
    rng = random.Random(seed)
    with path.open("w") as lines:
        for _ in range(count):
            topics = rng.sample(list(TOPICS), 1)
            row = {"text": _sentence(rng, topics), "label": label(topics)}
            lines.write(json.dumps(row) + "\n")
    return path


@pytest.fixture(scope="session")
def make_bert() -> Callable[..., object]:
    """Return what writes a random BERT classifier."""
    return _make_bert


@pytest.fixture(scope="session")
def write_rows() -> Callable[..., Path]:
    """Return what writes rows of texts and labels."""
    return _write_rows


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random three-layer BERT for three named classes."""
    folder = tmp_path_factory.mktemp("teacher") / "bert"
    _make_bert(folder)
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Training and test rows for three classes."""
    folder = tmp_path_factory.mktemp("rows")
    train = _write_rows(folder / "train.jsonl", 64, lambda topics: topics[0], 1)
    test = _write_rows(folder / "test.jsonl", 32, lambda topics: topics[0], 2)
    return str(train), str(test)


@pytest.fixture
def request_of(teacher: Path, data: tuple[str, str], tmp_path: Path):
    """Return a function that makes a request with some fields replaced."""

    def make(**changes: object) -> DistillRequest:
        fields: dict[str, object] = {
            "teacher": str(teacher),
            "student": "layers=0,2",
            "train": data[0],
            "evaluate": data[1],
            "work": tmp_path / "work",
            "training": QUICK,
        }
        return DistillRequest(**(fields | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture
def quiet() -> NullProgress:
    return NullProgress()
