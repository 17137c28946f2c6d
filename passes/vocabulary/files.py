"""The files next to a model that speak of tokens by number, with new numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from irtools.errors import DataError
from irtools.passes.vocabulary.tokenizer import TokenizerFile

__all__ = ["renumbered_files"]

_CONFIG_SUFFIX = "_token_id"


def renumbered_files(
    tokenizer: TokenizerFile, kept: Sequence[int], others: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Return the files to put next to the trimmed model, `tokenizer.json` first.

    Args:
        kept: Old numbers in their new order.
        others: `config.json`, `tokenizer_config.json` and `vocab.txt`, where they exist.

    Raises:
        DataError: One of them is not a JSON object.
    """
    number = {old: new for new, old in enumerate(kept)}
    made = {"tokenizer.json": tokenizer.trim(kept)}
    if "config.json" in others:
        made["config.json"] = _config(_read(others, "config.json"), number)
    if "tokenizer_config.json" in others:
        made["tokenizer_config.json"] = _settings(_read(others, "tokenizer_config.json"), number)
    if "vocab.txt" in others:
        names = {i: token for token, i in tokenizer.ids.items()}
        made["vocab.txt"] = "".join(f"{names.get(old, '')}\n" for old in kept).encode()
    return made


def _config(config: dict[str, Any], number: Mapping[int, int]) -> bytes:
    config["vocab_size"] = len(number)
    for key, value in config.items():
        if not key.endswith(_CONFIG_SUFFIX):
            continue
        if isinstance(value, int):
            config[key] = number.get(value)
        elif isinstance(value, list):
            config[key] = [number[i] for i in value if i in number]
    return _written(config)


def _settings(settings: dict[str, Any], number: Mapping[int, int]) -> bytes:
    added = settings.get("added_tokens_decoder")
    if isinstance(added, dict):
        settings["added_tokens_decoder"] = {
            str(number[int(key)]): token for key, token in added.items() if int(key) in number
        }
    return _written(settings)


def _read(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    try:
        found = json.loads(files[name])
    except ValueError as error:
        raise DataError(f"{name} next to the model is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{name} next to the model is not a JSON object")
    return found


def _written(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, ensure_ascii=False, indent=2) + "\n").encode()
