"""Small checkpoints on disk, made once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer BERT classifier with three named classes."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bert")
    config = BertConfig(
        vocab_size=97,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        id2label={0: "sport", 1: "trade", 2: "crude"},
        label2id={"sport": 0, "trade": 1, "crude": 2},
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0"}))
    return folder


@pytest.fixture
def edited_config(bert_folder: Path, tmp_path: Path):
    """Return a function that copies the checkpoint with some config entries replaced."""

    def edit(**changes: object) -> Path:
        config = json.loads((bert_folder / "config.json").read_text()) | changes
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "model.safetensors").write_bytes(
            (bert_folder / "model.safetensors").read_bytes()
        )
        return tmp_path

    return edit
