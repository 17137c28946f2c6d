"""The files next to a model that say how its inputs are made and its outputs are read."""

from __future__ import annotations

from pathlib import Path

__all__ = ["TOKENIZER_FILES", "companions_in"]

_NAMES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spm.model",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
    "classes.json",
)

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "preprocessor_config.json",
)
"""Those that a trained network takes over from the checkpoint that it was made from."""


def companions_in(folder: Path) -> tuple[Path, ...]:
    """Return those that a folder has, in a fixed order."""
    return tuple(path for name in _NAMES if (path := folder / name).is_file())
