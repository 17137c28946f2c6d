"""The tokenizer of a GGUF file as the files of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from irtools.checkpoints.gguf.file import Gguf
from irtools.words import printable

__all__ = ["write_tokenizer"]

_MODEL, _SPLIT = "tokenizer.ggml.model", "tokenizer.ggml.pre"
# How byte-level vocabularies split text before their merges, by the name that llama.cpp gives it.
# Those of the first line split digits apart and the rest as GPT-2 does; those of the second are
# GPT-2's; of the third Transformers has the expression.
_DIGITS_APART = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"})
_AS_GPT2 = frozenset({"gpt-2", "default", "phi-2", "jina-es", "jina-de", "olmo", "mpt"})
_KNOWN = frozenset({"llama3", "llama-v3", "llama-bpe", "tekken", "qwen2", "deepseek-r1-qwen"})


def write_tokenizer(gguf: Gguf, folder: Path) -> str | None:
    """Write `tokenizer.json` and its settings, made of the vocabulary in the file.

    Transformers makes it. A way to split text that is not known is left alone: texts would be
    split into other tokens than the network was trained on.

    Returns:
        What the user should know where nothing was written.
    """
    kind, split = gguf.metadata.get(_MODEL), gguf.metadata.get(_SPLIT, "default")
    if kind is None:
        return f"{gguf.path} holds no tokenizer: texts as data need --tokenizer"
    bytewise = kind == "gpt2"
    if kind != "llama" and not (bytewise and split in _DIGITS_APART | _AS_GPT2 | _KNOWN):
        what = f"{_SPLIT} {printable(split)!r}" if bytewise else f"{_MODEL} {printable(kind)!r}"
        return (
            f"the tokenizer of {gguf.path} ({what}) is not known here: texts as data need "
            "--tokenizer"
        )
    from transformers import PreTrainedTokenizerFast

    try:
        made = PreTrainedTokenizerFast.from_pretrained(gguf.path.parent, gguf_file=gguf.path.name)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        return (
            f"the tokenizer of {gguf.path} is damaged ({printable(error)}): texts as data need "
            "--tokenizer"
        )
    if bytewise and split in _DIGITS_APART:
        _split_digits(made)
    made.save_pretrained(folder)
    return None


def _split_digits(tokenizer: Any) -> None:
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
