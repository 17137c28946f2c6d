"""Small tokenizers of every kind, and a classifier over their tokens."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

TEXTS = [
    "the wheat harvest grows in the northern fields",
    "wheat and corn prices rise again",
    "the bank raises interest rates today",
    "interest rates fall and banks lend",
    "crude oil output falls, says the ministry",
    "oil prices rise: producers meet again today",
    "ships wait outside the northern port",
    "the port of call lends ships to traders",
] * 4
MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def make_wordpiece() -> Tokenizer:
    """Made by hand: what the trainer learns from these texts differs from process to process."""
    words = _counts(pre_tokenizers.BertPreTokenizer())
    letters = sorted(set("".join(words)))
    tokens = [*MARKS, *letters, *(f"##{letter}" for letter in letters)]
    tokens += [word[:size] for word in words for size in (2, 3, 4, 5)]  # Long ones in pieces.
    tokens += [f"##{word[5:]}" for word in words if len(word) > 6]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return _finish(tokenizer)


def make_bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=MARKS, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return _finish(tokenizer)


def make_unigram() -> Tokenizer:
    """Made by hand, for the same reason: a token scores the logarithm of its share."""
    words = _counts(pre_tokenizers.Metaspace())
    letters = sorted(set("".join(words)))
    total = sum(words.values())
    scored = [(mark, 0.0) for mark in MARKS]
    scored += [(word, math.log(count / total)) for word, count in words.items() if len(word) > 1]
    scored += [(letter, math.log(0.01 / total)) for letter in letters]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=MARKS.index("[UNK]")))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return _finish(tokenizer)


def _counts(splitter: pre_tokenizers.PreTokenizer) -> Counter[str]:
    """Return the words of the texts in the order of their first use, and how often each stands."""
    return Counter(word for text in TEXTS for word, _ in splitter.pre_tokenize_str(text))


def _finish(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.add_special_tokens(MARKS)
    marks = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=marks
    )
    return tokenizer


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "WordPiece": make_wordpiece,
    "BPE": make_bpe,
    "Unigram": make_unigram,
}


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return KINDS[request.param]()


def classifier(rows: int, *, tied: bool = False, per_token: bool = False) -> ir.Model:
    """Mean of the embeddings of the tokens that the mask keeps, and a head of two classes."""
    head = "y = MatMul(m, t)" if tied else "y = MatMul(m, w_head)"
    turned = "t = Transpose(w)" if tied else ""
    pooled = "m = Tanh(k)" if per_token else "m = ReduceSum<keepdims=0>(k, axes)"
    length = "batch,seq" if per_token else "batch"
    model = ir.from_onnx_text(f"""
    <ir_version: 10, opset_import: ["" : 20]>
    g (int64[batch,seq] input_ids, int64[batch,seq] attention_mask, float[{rows},16] w,
       float[16,2] w_head)
    => (float[{length},{rows if tied else 2}] logits)
    <int64[1] axes = {{1}}, int64[1] last = {{2}}> {{
      e = Gather(w, input_ids)
      f = Cast<to=1>(attention_mask)
      u = Unsqueeze(f, last)
      k = Mul(e, u)
      {pooled}
      {turned}
      {head.replace("y", "logits")}
    }}
    """)
    rng = np.random.default_rng(0)
    for name in ("w", "w_head"):
        (value,) = [v for v in model.graph.inputs if v.name == name]
        model.graph.inputs.remove(value)
        array = rng.normal(size=[int(d) for d in value.shape]).astype(np.float32)
        value.const_value = ir.Tensor(array, name=name)
        model.graph.register_initializer(value)
    return model


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A folder with a model, its WordPiece tokenizer and configuration, and texts with labels."""
    folder = tmp_path / "task"
    folder.mkdir()
    made = make_wordpiece()
    made.save(str(folder / "tokenizer.json"))
    size = made.get_vocab_size()
    config = {"vocab_size": size, "pad_token_id": 0, "hidden_size": 16, "eos_token_id": None}
    (folder / "config.json").write_text(json.dumps(config))
    settings = {"pad_token": "[PAD]", "added_tokens_decoder": {"0": {"content": "[PAD]"}}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    ir.save(classifier(size), folder / "model.onnx")
    (folder / "data").mkdir()
    rows = [json.dumps({"text": t, "label": i % 2}) for i, t in enumerate(TEXTS)]
    (folder / "data" / "all.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "data" / "half.jsonl").write_text("\n".join(rows[:4]) + "\n")
    return folder
