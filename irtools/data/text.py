"""Text and text pairs, tokenized for a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from irtools.data.base import Dataset
from irtools.data.labels import encode_labels, find_class_names
from irtools.data.records import Record, read_records
from irtools.data.signature import InputSpec
from irtools.errors import DataError

__all__ = ["TextSettings", "read_text"]

_TEXT_COLUMNS = ("text", "sentence", "content", "sentence1", "premise", "question")
_PAIR_COLUMNS = ("text_pair", "text2", "sentence2", "hypothesis", "context", "answer")
_LABEL_COLUMNS = ("label", "labels", "class", "category", "target")
_DEFAULT_LENGTH = 512
_SANE_LENGTH = 1 << 20  # Tokenizer configs write 10^30 for "no limit".
_PADS = ("[PAD]", "<pad>", "<|endoftext|>", "</s>", "<|im_end|>")


@dataclass(frozen=True)
class TextSettings:
    """How text becomes ids.

    Attributes:
        tokenizer: A `tokenizer.json`, or a folder with one; None: beside the data or the model.
        columns: One or two text columns; None: the usual names.
        label_column: None: the usual names, or no labels.
        max_length: Most tokens; None: the model's fixed length, else what the tokenizer states
            (truncation, `model_max_length`), at most 512.
    """

    tokenizer: Path | None = None
    columns: tuple[str, ...] | None = None
    label_column: str | None = None
    max_length: int | None = None


def read_text(
    path: Path,
    inputs: Sequence[InputSpec],
    settings: TextSettings = TextSettings(),
    model_folder: Path | None = None,
) -> Dataset:
    """Read and tokenize a file of rows.

    Args:
        inputs: What the model takes; `input_ids`, `attention_mask`, `token_type_ids` and
            `position_ids` can be made.
        model_folder: Where the model lies, for its tokenizer and class names.

    Raises:
        DataError: No tokenizer, no text column, a bad line (by number), or an input that text
            does not give.
    """
    folders = [path.parent, *([model_folder] if model_folder else [])]
    records = read_records(path)
    if not records:
        raise DataError(f"{path} holds no rows")
    columns = settings.columns or _guess_columns(path, records[0][1])
    texts = [_texts(where, fields, columns) for where, fields in records]
    feeds = _Encoder(settings, folders, inputs).encode(texts)
    labels, notes = _labels(records, settings.label_column, folders)
    return Dataset(feeds, labels, source=path.name, notes=notes)


def _guess_columns(path: Path, fields: Mapping[str, Any]) -> tuple[str, ...]:
    first = [name for name in _TEXT_COLUMNS if name in fields]
    if not first:
        raise DataError(
            f"{path} has columns {', '.join(fields) or 'none'}, and none of them is called "
            f"{', '.join(_TEXT_COLUMNS)}; say which columns hold text"
        )
    second = [name for name in _PAIR_COLUMNS if name in fields]
    return (first[0], *second[:1])


def _texts(where: str, fields: Mapping[str, Any], columns: Sequence[str]) -> tuple[str, ...]:
    for name in columns:
        if not isinstance(fields.get(name), str):
            found = repr(fields[name])[:60] if name in fields else "no such field"
            raise DataError(f"{where}: column '{name}' should hold text, found {found}")
    return tuple(fields[name] for name in columns)


def _labels(
    records: Sequence[Record], column: str | None, folders: Sequence[Path]
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    usual = [name for name in _LABEL_COLUMNS if name in records[0][1]]
    chosen = column or (usual[0] if usual else None)
    if chosen is None:
        return None, ()
    missing = [where for where, fields in records if chosen not in fields]
    if missing:
        raise DataError(f"{missing[0]}: no label column '{chosen}'")
    raw = [(where, fields[chosen]) for where, fields in records]
    return encode_labels(raw, find_class_names(folders))


class _Encoder:
    """A tokenizer set up for a model."""

    def __init__(
        self, settings: TextSettings, folders: Sequence[Path], inputs: Sequence[InputSpec]
    ) -> None:
        self._inputs = inputs
        file = _find_tokenizer(settings.tokenizer, folders)
        self._tokenizer = _open_tokenizer(file)
        self._config = _read_config(file.with_name("tokenizer_config.json"))
        fixed = _fixed_length(inputs)
        self._length = settings.max_length or fixed or self._stated_length()
        self._tokenizer.enable_truncation(self._length)
        self._tokenizer.enable_padding(
            direction=self._side(),
            pad_id=self._pad()[1],
            pad_token=self._pad()[0],
            length=fixed,
        )

    def encode(self, texts: Sequence[tuple[str, ...]]) -> dict[str, np.ndarray]:
        """Return the model's inputs, [N, S] each, S the longest row."""
        rows = [text[0] if len(text) == 1 else text for text in texts]
        encodings = self._tokenizer.encode_batch(rows)
        made = {
            "input_ids": np.array([e.ids for e in encodings], np.int64),
            "attention_mask": np.array([e.attention_mask for e in encodings], np.int64),
            "token_type_ids": np.array([e.type_ids for e in encodings], np.int64),
        }
        # As transformers numbers the positions of a padded batch.
        made["position_ids"] = np.maximum(made["attention_mask"].cumsum(axis=1) - 1, 0)
        made["input_mask"], made["segment_ids"] = made["attention_mask"], made["token_type_ids"]
        unknown = [spec.name for spec in self._inputs if spec.name not in made]
        if unknown:
            raise DataError(
                f"text gives {', '.join(made)}, and the model also takes {', '.join(unknown)}: "
                "give the data as .npz with an array per input"
            )
        return {spec.name: made[spec.name] for spec in self._inputs}

    def _stated_length(self) -> int:
        truncation = self._tokenizer.truncation
        if truncation is not None:
            return int(truncation["max_length"])
        stated = self._config.get("model_max_length")
        if isinstance(stated, int | float) and 0 < stated < _SANE_LENGTH:
            return min(int(stated), _DEFAULT_LENGTH)
        return _DEFAULT_LENGTH

    def _side(self) -> str:
        stated = (self._tokenizer.padding or {}).get("direction", "right")
        return str(self._config.get("padding_side", stated))

    def _pad(self) -> tuple[str, int]:
        padding = self._tokenizer.padding
        if padding is not None:
            return padding["pad_token"], int(padding["pad_id"])
        stated = self._config.get("pad_token")
        name = stated.get("content") if isinstance(stated, dict) else stated
        for token in [name, *_PADS]:
            number = self._tokenizer.token_to_id(token) if token else None
            if number is not None:
                return str(token), int(number)
        return "[PAD]", 0


def _find_tokenizer(given: Path | None, folders: Sequence[Path]) -> Path:
    if given is not None:
        folders = [given] if given.is_dir() else [given.parent]
        name = "tokenizer.json" if given.is_dir() else given.name
    else:
        name = "tokenizer.json"
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    looked = " or ".join(dict.fromkeys(str(folder / name) for folder in folders))
    raise DataError(
        f"text needs a tokenizer, and there is none at {looked}; put the model's "
        "tokenizer.json there"
    )


def _open_tokenizer(path: Path) -> Any:
    from tokenizers import Tokenizer

    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        return Tokenizer.from_str(text)
    # The library raises bare Exception for any file that it cannot read.
    except Exception as error:
        raise DataError(
            f"{path} is not a tokenizer.json of the tokenizers library: {error}"
        ) from error


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    return config if isinstance(config, dict) else {}


def _fixed_length(inputs: Sequence[InputSpec]) -> int | None:
    sizes = [spec.shape[1] for spec in inputs if spec.shape and len(spec.shape) == 2]
    return next((size for size in sizes if isinstance(size, int)), None)
