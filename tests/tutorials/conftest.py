"""What the reader of a tutorial has: a small checkpoint, a small model, and data for both."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

WORDS = (
    "grain",
    "exports",
    "rose",
    "fell",
    "in",
    "spring",
    "oil",
    "prices",
    "banks",
    "lend",
    "rain",
)
CLASSES = ("crude", "grain", "money")


@pytest.fixture
def write_bert() -> Callable[[Path], None]:
    """Return what writes the folder `my-bert`, and texts with the answers that it gives."""
    return _write_bert


@pytest.fixture
def write_classifier() -> Callable[[Path], None]:
    """Return what writes `model.onnx`, and the arrays `calib.npz` and `test.npz` for it."""
    return _write_classifier


@pytest.fixture
def write_llama() -> Callable[[Path], None]:
    """Return what writes the folder `my-llama`, a decoder with its tokenizer."""
    return _write_llama


def _write_llama(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    words = ["<unk>", "<s>", "</s>", "the", "market", *WORDS]
    vocabulary = {word: number for number, word in enumerate(words)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    tokenizer.save_pretrained(folder / "my-llama")
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(words),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            initializer_range=0.2,
            bos_token_id=1,
            eos_token_id=2,
        )
    ).save_pretrained(folder / "my-llama")


def _write_bert(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    torch.manual_seed(0)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]")
    tokenizer.save_pretrained(folder / "my-bert")
    network = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            max_position_embeddings=32,
            initializer_range=0.2,  # The layers of a random network must do something.
            id2label=dict(enumerate(CLASSES)),
            label2id={name: number for number, name in enumerate(CLASSES)},
        )
    ).eval()
    network.save_pretrained(folder / "my-bert")
    random.seed(0)
    texts = [" ".join(random.choices(WORDS, k=random.randint(3, 12))) for _ in range(700)]
    with torch.no_grad():
        given = tokenizer(texts, padding=True, return_tensors="pt")
        logits = network(given.input_ids, given.attention_mask).logits.numpy()
    labels = [CLASSES[number] for number in logits.argmax(axis=1)]
    rows = list(zip(texts, labels, strict=True))
    for name, part in (("train", rows[:64]), ("test", rows[64:])):
        lines = (json.dumps({"text": text, "label": label}) for text, label in part)
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with (folder / "mails.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("body", "topic"), *rows])


def _write_classifier(folder: Path) -> None:
    rng = np.random.default_rng(0)
    model = ir.from_onnx_text("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[batch,32] x, float[32,128] first, float[128,4] second) => (float[batch,4] logits)
        { h = MatMul(x, first)  r = Relu(h)  logits = MatMul(r, second) }
    """)
    weights = {}
    for name in ("first", "second"):
        (value,) = (v for v in model.graph.inputs if v.name == name)
        model.graph.inputs.remove(value)
        shape = [int(size) for size in value.shape]
        weights[name] = rng.standard_normal(shape).astype(np.float32) / 8
        value.const_value = ir.tensor(weights[name], name=name)
        model.graph.register_initializer(value)
    ir.save(model, folder / "model.onnx")
    x = rng.standard_normal((2000, 32)).astype(np.float32)
    logits = np.maximum(x @ weights["first"], 0) @ weights["second"]
    ranked = np.sort(logits, axis=-1)
    clear = np.argsort(ranked[:, -2] - ranked[:, -1])[:800]  # Those at a border decide nothing.
    np.savez(folder / "calib.npz", x=x[:64])
    np.savez(folder / "test.npz", x=x[clear], labels=logits[clear].argmax(axis=-1))
