"""Text and text pairs, tokenized for a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from irtools.analysis.decoder import is_past
from irtools.data.base import Dataset, TextRows
from irtools.data.labels import encode_labels, find_class_names
from irtools.data.records import Record, read_records
from irtools.data.signature import InputSpec
from irtools.errors import DataError, FileError

__all__ = [
    "TextSettings",
    "encode_texts",
    "fixed_length",
    "input_encoder",
    "number_classes",
    "open_tokenizer",
    "read_config",
    "read_text",
    "read_texts",
    "set_up_tokenizer",
    "tokenizer_files",
]

_TEXT_COLUMNS = ("text", "sentence", "content", "sentence1", "premise", "question")
_PAIR_COLUMNS = ("text_pair", "text2", "sentence2", "hypothesis", "context", "answer")
_LABEL_COLUMNS = ("label", "labels", "class", "category", "target")
_TOKENIZER, _SETTINGS = "tokenizer.json", "tokenizer_config.json"
_DEFAULT_LENGTH = 512
_SANE_LENGTH = 1 << 20  # Tokenizer configs write 10^30 for "no limit".
_PADS = ("[PAD]", "<pad>", "<|endoftext|>", "</s>", "<|im_end|>")


@dataclass(frozen=True)
class TextSettings:
    """How text becomes ids.

    Attributes:
        tokenizer: A `tokenizer.json`, or a folder with one; None: next to the model or the data.
        columns: One or two text columns; None: the usual names.
        label_column: None: the usual names, or no labels.
        max_length: Most tokens; None: the model's fixed length, else what the tokenizer states
            (truncation, `model_max_length`), at most 512.
        class_names: Class name to number; empty: config.json or classes.json next to the data or
            the model.
    """

    tokenizer: Path | None = None
    columns: tuple[str, ...] | None = None
    label_column: str | None = None
    max_length: int | None = None
    class_names: Mapping[str, int] = field(default_factory=dict)


def read_text(
    path: Path,
    inputs: Sequence[InputSpec],
    settings: TextSettings = TextSettings(),
    model_folder: Path | None = None,
    provided: Mapping[str, bytes] = MappingProxyType({}),
) -> Dataset:
    """Read and tokenize a file of rows.

    Args:
        inputs: What the model takes; `input_ids`, `attention_mask`, `token_type_ids` and
            `position_ids` can be made.
        model_folder: Folder of the model, for its tokenizer and class names.
        provided: Files that count as next to the model, by name; see `Model.companions`.

    Raises:
        DataError: No tokenizer, no text column, a bad line (by number), or an input that text
            does not give.
    """
    folders = [path.parent, *([model_folder] if model_folder else [])]
    records = read_records(path)
    texts = _all_texts(path, records, settings.columns)
    file, files = tokenizer_files(settings.tokenizer, folders, provided)
    name = _TOKENIZER if file is None else str(file)
    encoder = _Encoder(files, settings.max_length, inputs, name)
    used = _named_labels(records, settings.label_column)
    # The model's own first here, too: its outputs are numbered as it says.
    names = settings.class_names or find_class_names(folders[::-1], used)
    labels, notes = _labels(records, settings.label_column, names)

    def encode(
        rows: Sequence[tuple[str, ...]], companions: Mapping[str, bytes]
    ) -> dict[str, np.ndarray]:
        return _Encoder({**files, **companions}, encoder.length, inputs, _TOKENIZER).encode(rows)

    return Dataset(
        encoder.encode(texts),
        labels,
        source=path.name,
        notes=notes,
        texts=TextRows(tuple(texts), file, encode),
    )


def read_texts(path: Path, columns: tuple[str, ...] | None = None) -> list[tuple[str, ...]]:
    """Return the texts of a file of rows, one or two per row.

    Raises:
        DataError: As `read_text`.
    """
    return _all_texts(path, read_records(path), columns)


def encode_texts(texts: Sequence[tuple[str, ...]], tokenizer: bytes) -> list[list[int]]:
    """Return the token ids of texts, at full length and without padding.

    Args:
        tokenizer: Content of a `tokenizer.json`.
    """
    opened = open_tokenizer(tokenizer, _TOKENIZER)
    opened.no_truncation()
    opened.no_padding()
    rows = [text[0] if len(text) == 1 else text for text in texts]
    return [list(encoding.ids) for encoding in opened.encode_batch(rows)]


def input_encoder(
    inputs: Sequence[InputSpec], files: Mapping[str, bytes]
) -> Callable[[Sequence[tuple[str, ...]]], dict[str, np.ndarray]]:
    """Return what makes of texts, one or two per row, what a model is fed: [N, S] each, S the
    longest of them.

    Args:
        inputs: What the model takes.
        files: `tokenizer.json` and, where there is one, `tokenizer_config.json`.

    Raises:
        DataError: An input that text does not give, or no tokenizer.
    """
    return _encoder(inputs, files).encode


def set_up_tokenizer(inputs: Sequence[InputSpec], files: Mapping[str, bytes]) -> str:
    """Return a `tokenizer.json` that pads and cuts as the model needs it, wherever it is used.

    Args:
        inputs: As `input_encoder` takes them; likewise `files`.

    Raises:
        DataError: No tokenizer.
    """
    return str(_encoder(inputs, files).tokenizer.to_str(pretty=True))


def _encoder(inputs: Sequence[InputSpec], files: Mapping[str, bytes]) -> _Encoder:
    if _TOKENIZER not in files:
        raise DataError(f"text needs a tokenizer, and there is no {_TOKENIZER} next to the model")
    return _Encoder(files, None, inputs, _TOKENIZER)


def _all_texts(
    path: Path, records: Sequence[Record], columns: tuple[str, ...] | None
) -> list[tuple[str, ...]]:
    if not records:
        raise DataError(f"{path} holds no rows")
    chosen = columns or _guess_columns(path, records[0][1])
    return [_texts(where, fields, chosen) for where, fields in records]


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
    records: Sequence[Record], column: str | None, names: Mapping[str, int]
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    chosen = column or _usual_label(records[0][1])
    if chosen is None:
        return None, ()
    missing = [where for where, fields in records if chosen not in fields]
    if missing:
        raise DataError(f"{missing[0]}: no label column '{chosen}'")
    raw = [(where, fields[chosen]) for where, fields in records]
    return encode_labels(raw, names)


def _usual_label(fields: Mapping[str, Any]) -> str | None:
    return next((name for name in _LABEL_COLUMNS if name in fields), None)


def number_classes(path: Path, column: str | None = None) -> dict[str, int]:
    """Number the class names of a table: as `classes.json` next to it says, else by name.

    Empty where labels are numbers and nothing names them.

    Several tables of one task need one numbering: make it from the first, and give it to all as
    `class_names`.

    Raises:
        DataError: A line that cannot be parsed.
        FileError: The file cannot be read.
    """
    found = _named_labels(read_records(path), column)
    known = find_class_names([path.parent], found)
    if known.keys() >= found:
        return known
    return {name: number for number, name in enumerate(sorted(found))}


def _named_labels(records: Sequence[Record], column: str | None) -> set[str]:
    """Return the labels that are names."""
    chosen = column or (_usual_label(records[0][1]) if records else None)
    found: set[str] = set()
    for _, fields in records:
        label = fields.get(chosen) if chosen else None
        items = label if isinstance(label, list) else [label]
        found |= {x for x in items if isinstance(x, str) and x and not x.lstrip("-").isdecimal()}
    return found


class _Encoder:
    """A tokenizer set up for a model.

    Args:
        files: `tokenizer.json` and, where there is one, `tokenizer_config.json`.
        max_length: Most tokens; None: what model or tokenizer state.
        name: What to call the tokenizer in a message.

    Attributes:
        length: Most tokens of a row.
        tokenizer: Pads and cuts to it.
    """

    def __init__(
        self,
        files: Mapping[str, bytes],
        max_length: int | None,
        inputs: Sequence[InputSpec],
        name: str,
    ) -> None:
        self._inputs = inputs
        self.tokenizer = open_tokenizer(files[_TOKENIZER], name)
        self._config = read_config(files.get(_SETTINGS), name)
        fixed = fixed_length(inputs)
        self.length = max_length or fixed or self._stated_length()
        self.tokenizer.enable_truncation(self.length)
        self.tokenizer.enable_padding(
            direction=self._side(),
            pad_id=self._pad()[1],
            pad_token=self._pad()[0],
            length=fixed,
        )

    def encode(self, texts: Sequence[tuple[str, ...]]) -> dict[str, np.ndarray]:
        """Return the model's inputs, [N, S] each, S the longest row."""
        rows = [text[0] if len(text) == 1 else text for text in texts]
        encodings = self.tokenizer.encode_batch(rows)
        made = {
            "input_ids": np.array([e.ids for e in encodings], np.int64),
            "attention_mask": np.array([e.attention_mask for e in encodings], np.int64),
            "token_type_ids": np.array([e.type_ids for e in encodings], np.int64),
        }
        # As transformers numbers the positions of a padded batch.
        made["position_ids"] = np.maximum(made["attention_mask"].cumsum(axis=1) - 1, 0)
        made["input_mask"], made["segment_ids"] = made["attention_mask"], made["token_type_ids"]
        # A cache is empty before the text; `fit_dataset` adds it.
        inputs = [spec for spec in self._inputs if not is_past(spec.name)]
        unknown = [spec.name for spec in inputs if spec.name not in made]
        if unknown:
            raise DataError(
                f"text gives {', '.join(made)}, and the model also takes {', '.join(unknown)}: "
                "give the data as .npz with an array per input"
            )
        return {spec.name: made[spec.name] for spec in inputs}

    def _stated_length(self) -> int:
        truncation = self.tokenizer.truncation
        if truncation is not None:
            return int(truncation["max_length"])
        stated = self._config.get("model_max_length")
        if isinstance(stated, int | float) and 0 < stated < _SANE_LENGTH:
            return min(int(stated), _DEFAULT_LENGTH)
        return _DEFAULT_LENGTH

    def _side(self) -> str:
        stated = (self.tokenizer.padding or {}).get("direction", "right")
        return str(self._config.get("padding_side", stated))

    def _pad(self) -> tuple[str, int]:
        padding = self.tokenizer.padding
        if padding is not None:
            return padding["pad_token"], int(padding["pad_id"])
        stated = self._config.get("pad_token")
        name = stated.get("content") if isinstance(stated, dict) else stated
        for token in [name, *_PADS]:
            number = self.tokenizer.token_to_id(token) if token else None
            if number is not None:
                return str(token), int(number)
        return "[PAD]", 0


def tokenizer_files(
    given: Path | None, folders: Sequence[Path], provided: Mapping[str, bytes]
) -> tuple[Path | None, dict[str, bytes]]:
    """Return the tokenizer's file, None where the model holds it, and what is to be read of it.

    Args:
        folders: That of the data, then that of the model.
    """
    if given is None and _TOKENIZER in provided:
        settings = folders[-1] / _SETTINGS
        found = {_SETTINGS: settings.read_bytes()} if settings.is_file() else {}
        return None, {**found, **provided}
    # The model's own first: a pass may have given it another one than its relatives have.
    file = _find_tokenizer(given, folders[::-1])
    return file, _read_files(file)


def _find_tokenizer(given: Path | None, folders: Sequence[Path]) -> Path:
    if given is not None:
        folders = [given] if given.is_dir() else [given.parent]
        name = _TOKENIZER if given.is_dir() else given.name
    else:
        name = _TOKENIZER
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    looked = " or ".join(dict.fromkeys(str(folder / name) for folder in folders))
    raise DataError(
        f"text needs a tokenizer, and there is none at {looked}; put the model's "
        "tokenizer.json there, or name it (--tokenizer)"
    )


def _read_files(tokenizer: Path) -> dict[str, bytes]:
    settings = tokenizer.with_name(_SETTINGS)
    try:
        found = {_TOKENIZER: tokenizer.read_bytes()}
        return {**found, _SETTINGS: settings.read_bytes()} if settings.is_file() else found
    except OSError as error:
        raise FileError(f"cannot read {tokenizer}: {error.strerror or error}") from error


def open_tokenizer(content: bytes, name: str) -> Any:
    """Return the tokenizer of a `tokenizer.json`.

    Raises:
        DataError: It is not one.
    """
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(content.decode("utf-8", errors="replace"))
    # The library raises bare Exception for any file that it cannot read.
    except Exception as error:
        raise DataError(
            f"{name} is not a tokenizer.json of the tokenizers library: {error}"
        ) from error


def read_config(content: bytes | None, name: str) -> dict[str, Any]:
    """Return a file of settings in JSON; nothing where it is not there, or no object.

    Raises:
        DataError: It is not JSON.
    """
    if content is None:
        return {}
    try:
        config = json.loads(content)
    except ValueError as error:
        raise DataError(f"{Path(name).with_name(_SETTINGS)} is not JSON: {error}") from error
    return config if isinstance(config, dict) else {}


def fixed_length(inputs: Sequence[InputSpec]) -> int | None:
    """Return the number of tokens that a model takes; None: any."""
    sizes = [spec.shape[1] for spec in inputs if spec.shape and len(spec.shape) == 2]
    return next((size for size in sizes if isinstance(size, int)), None)
