"""The `tokenizer.json` of a checkpoint that has its vocabulary in an older form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from irtools.files import scratch_folder
from irtools.frontends.torch import LIBRARY_FAILURES

__all__ = ["make_tokenizer"]

_FILE = "tokenizer.json"
_WORDS = "vocab.txt"
_OLDER = (
    *(_WORDS, "vocab.json", "spm.model", "spiece.model"),
    *("sentencepiece.bpe.model", "tokenizer.model"),
)


def make_tokenizer(folder: Path) -> Mapping[str, bytes]:
    """Return `tokenizer.json` where a folder lacks it, made of its vocabulary; else nothing.

    Transformers converts the older forms. A vocabulary that it cannot convert, or does not find
    again in what it made, is left alone: the texts of such a model need a tokenizer that the
    caller gives.
    """
    if (folder / _FILE).is_file() or not any((folder / name).is_file() for name in _OLDER):
        return {}
    made = _converted(folder)
    if made is None or not set(_words(folder)) <= set(made.get_vocab()):
        return {}
    with scratch_folder("tokenizer") as scratch:
        made.save_pretrained(scratch)
        path = scratch / _FILE
        return {_FILE: path.read_bytes()} if path.is_file() else {}


def _converted(folder: Path) -> Any:
    from transformers import AutoTokenizer

    words = _words(folder)
    # Without settings of its own a tokenizer would make every text lower case.
    lacks_settings = words and not (folder / "tokenizer_config.json").is_file()
    options = {"do_lower_case": _is_lower(words)} if lacks_settings else {}
    try:
        return AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **options
        )
    except LIBRARY_FAILURES:
        # As many ways to fail as there are forms; a model without a tokenizer is still a model.
        return None


def _is_lower(words: Sequence[str]) -> bool:
    return all(word == word.lower() for word in words if not word.startswith(("[", "<")))


def _words(folder: Path) -> list[str]:
    """Return the words of a `vocab.txt`, one a line."""
    path = folder / _WORDS
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    return [line for line in text.split("\n") if line]
