"""The tokenizer of a GGUF file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from irtools.checkpoints import plain_checkpoint

pytestmark = [pytest.mark.gguf, pytest.mark.torch]


def byte_level(split: str) -> dict[str, Any]:
    """A vocabulary of printable letters and digits, with merges across digits and after spaces."""
    letters = [chr(code) for code in range(33, 127)] + ["Ġ", "Ċ"]
    merges = ["Ġ 1", "1 2", "12 3", "a b", "Ġ a"]
    merged = [merge.replace(" ", "") for merge in merges]
    tokens = ["<|end|>", *letters, *merged]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": split,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, *[1] * (len(tokens) - 1)],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": 0,
    }


@pytest.mark.parametrize(
    ("split", "wanted"),
    [
        # Digits apart: no merge of them is ever made, and none with the space before.
        ("smollm", ["ab", "Ġ", "1", "2", "3", "Ġa", "<|end|>"]),
        ("gpt-2", ["ab", "Ġ1", "2", "3", "Ġa", "<|end|>"]),
        ("llama-bpe", ["ab", "Ġ", "123", "Ġa", "<|end|>"]),
        ("qwen2", ["ab", "Ġ", "1", "2", "3", "Ġa", "<|end|>"]),
    ],
)
def test_text_is_split_as_the_vocabulary_wants_it(
    tiny_gguf: Any, tmp_path: Path, split: str, wanted: list[str]
) -> None:
    from tokenizers import Tokenizer

    tiny_gguf.metadata |= byte_level(split)
    with plain_checkpoint(tiny_gguf.write(tmp_path / "m.gguf")) as plain:
        made = Tokenizer.from_file(str(plain.folder / "tokenizer.json"))
        assert plain.notes == (f"read 11 tensors of {plain.source}",)
    assert made.encode("ab 123 a<|end|>").tokens == wanted


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokenizer.ggml.pre": "wonder"}, "(tokenizer.ggml.pre 'wonder') is not known here"),
        ({"tokenizer.ggml.model": "bert"}, "(tokenizer.ggml.model 'bert') is not known here"),
        ({"tokenizer.ggml.tokens": [1, 2]}, "is damaged"),
        ({"tokenizer.ggml.eos_token_id": 10_000}, "is damaged"),
        ({"tokenizer.ggml.merges": ["no", "merge"]}, "is damaged"),
    ],
)
def test_what_is_not_known_is_left_out_and_said(
    tiny_gguf: Any, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    tiny_gguf.metadata |= {**byte_level("gpt-2"), **changes}
    with plain_checkpoint(tiny_gguf.write(tmp_path / "m.gguf")) as plain:
        assert not (plain.folder / "tokenizer.json").exists()
        assert said in plain.notes[1] and plain.notes[1].endswith("texts as data need --tokenizer")


def test_no_tokenizer_is_said(
    tiny_gguf: Any, tmp_path: Path, gguf_bytes: Callable[..., Any]
) -> None:
    with plain_checkpoint(tiny_gguf.write(tmp_path / "m.gguf")) as plain:
        assert "holds no tokenizer: texts as data need --tokenizer" in plain.notes[1]
