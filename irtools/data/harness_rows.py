"""The requests of a task of lm-evaluation-harness as samples: one sample per document.

A sample is a whole call: the R requests about a document are the rows of [R, S], padded on the
right. Labels are [N, R, 3 + S], int64:

    [n, r, 0]   number of the document; -1 where it has fewer than r + 1 rows
    [n, r, 1]   checksum of the document, so that another task's documents are recognized
    [n, r, 2]   number of the request; a long text has a row for each of its windows
    [n, r, 3:]  the token to be predicted at each position, -100 where none is scored

Texts become tokens as lm_eval's `HFLM` makes them: its own methods split context and continuation,
cut from the left, and cut long texts into windows.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from irtools.analysis.decoder import is_past
from irtools.data.base import Dataset, objects
from irtools.data.harness import HarnessTask, read_task
from irtools.data.signature import InputSpec
from irtools.data.text import (
    TextSettings,
    fixed_length,
    open_tokenizer,
    read_config,
    tokenizer_files,
)
from irtools.errors import DataError
from irtools.files import context_length, read_settings

__all__ = ["IGNORED", "LABELS", "checksum", "read_harness"]

LABELS = 3
"""Columns of the labels in front of the tokens."""
IGNORED = -100
_DEFAULT_LENGTH = 2048  # HFLM's.
_SANE_LENGTH = 1 << 20
_INPUTS = ("input_ids", "attention_mask", "position_ids", "token_type_ids")


class _Row(NamedTuple):
    """A sequence, the number of its request, and how many of its last positions are scored."""

    request: int
    tokens: list[int]
    scored: int


def read_harness(
    text: str,
    inputs: Sequence[InputSpec],
    settings: TextSettings,
    model_folder: Path | None,
    provided: Mapping[str, bytes],
) -> Dataset:
    """Read the documents of a task as samples for a decoder.

    Args:
        text: `lm-eval:PATH`.
        inputs: What the model takes besides a cache.
        settings: Tokenizer and most tokens of a request; None: as many as the model was trained on.
        model_folder: Folder of the model, for its tokenizer and `config.json`.
        provided: Files that count as next to the model, by name.

    Raises:
        IrtoolsError: As `read_task`.
        DataError: No tokenizer, or an input that text does not give.
    """
    task = read_task(text)
    unknown = [one.name for one in inputs if one.name not in _INPUTS and not is_past(one.name)]
    if unknown:
        raise DataError(
            f"{task.name} gives {', '.join(_INPUTS)}, and the model also takes {unknown[0]}"
        )
    folders = [] if model_folder is None else [model_folder]
    file, files = tokenizer_files(settings.tokenizer, folders, provided)
    where = file.parent if file is not None else model_folder
    known = _Settings(where, provided)
    length = settings.max_length or fixed_length(inputs) or known.length
    encoder = _Encoder(open_tokenizer(files["tokenizer.json"], str(file)), known, length)
    rows = [encoder.rows(task, number) for number in range(len(task.requests))]
    if not rows:
        raise DataError(f"{task.name} has no documents")
    return _dataset(task, rows, inputs)


def checksum(document: object) -> int:
    """Return a number that differs between documents."""
    return zlib.crc32(repr(document).encode())


class _Settings:
    """What the files next to a model say of its tokens and its length.

    Args:
        folder: Where they are.
        provided: Those that the model holds itself.
    """

    def __init__(self, folder: Path | None, provided: Mapping[str, bytes]) -> None:
        names = ("config.json", "tokenizer_config.json", "special_tokens_map.json")
        self._network, self._tokenizer, self._tokens = (
            read_config(provided[name], name)
            if name in provided
            else ({} if folder is None else read_settings(folder / name))
            for name in names
        )

    @property
    def length(self) -> int:
        """Most tokens."""
        stated = context_length(self._network) or self._tokenizer.get("model_max_length")
        sane = isinstance(stated, int | float) and 0 < stated < _SANE_LENGTH
        return int(stated) if sane else _DEFAULT_LENGTH  # type: ignore[arg-type]

    def special(self, number_of: Callable[[str], int | None]) -> int | None:
        """Return the token that texts begin after, else the one that they end with."""
        for name in ("bos_token", "eos_token"):
            entry = self._tokenizer.get(name) or self._tokens.get(name)
            entry = entry.get("content") if isinstance(entry, dict) else entry
            found = number_of(entry) if entry else self._network.get(f"{name}_id")
            if isinstance(found, int):
                return found
        return None


class _Encoder:
    """Makes tokens of requests as `HFLM` does.

    Args:
        tokenizer: Of the tokenizers library.
        known: What is next to the model.
        length: Most tokens.
    """

    def __init__(self, tokenizer: Any, known: _Settings, length: int) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self._length = length
        self._start = known.special(tokenizer.token_to_id)
        self._start_text = None if self._start is None else tokenizer.id_to_token(self._start)

    def rows(self, task: HarnessTask, document: int) -> list[_Row]:
        """Return what a document asks."""
        asked = task.requests[document]
        return [row for number, one in enumerate(asked) for row in self._of(task, one, number)]

    def _of(self, task: HarnessTask, request: Any, number: int) -> Iterator[_Row]:
        pairs = (
            self._windows(task, request.args)
            if request.request_type.endswith("rolling")
            else ([self._pair(task, *request.args)])
        )
        for context, continuation in pairs:
            if not continuation or len(continuation) > self._length:
                raise DataError(
                    f"{task.name}: document {request.doc_id} asks for {len(continuation)} tokens, "
                    f"expected 1 to {self._length}"
                )
            tokens = (context + continuation)[-(self._length + 1) :]
            yield _Row(number, tokens, len(continuation))

    def _pair(self, task: HarnessTask, context: str, text: str) -> tuple[list[int], list[int]]:
        from lm_eval.api.model import TemplateLM

        if context:
            found: tuple[list[int], list[int]] = TemplateLM._encode_pair(
                _Causal(self), context, text
            )
            return found
        tokens, start = self.tok_encode(text, add_special_tokens=False), self._first(task)
        return ([start], tokens) if tokens[:1] != [start] else (tokens[:1], tokens[1:])

    def _windows(self, task: HarnessTask, given: Sequence[str]) -> Iterator[Any]:
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        tokens, start = self.tok_encode(given[0]), self._first(task)
        return map(make_disjoint_window, get_rolling_token_windows(tokens, start, self._length, 1))

    def _first(self, task: HarnessTask) -> int:
        if self._start is None:
            raise DataError(
                f"{task.name} asks for texts from their first token on, and the tokenizer names no "
                "bos_token and no eos_token"
            )
        return self._start

    def tok_encode(self, text: str, add_special_tokens: bool | None = None) -> list[int]:
        """Return the tokens of a text; lm_eval calls this."""
        special = add_special_tokens
        if special is None:
            special = self._start_text is None or not text.startswith(self._start_text)
        return list(self._tokenizer.encode(text, add_special_tokens=special).ids)


class _Causal:
    """What lm_eval's own splitting of a request asks of a model."""

    backend = "causal"

    def __init__(self, encoder: _Encoder) -> None:
        self.tok_encode = encoder.tok_encode


def _dataset(
    task: HarnessTask, rows: Sequence[Sequence[_Row]], inputs: Sequence[InputSpec]
) -> Dataset:
    fixed = fixed_length(inputs)
    widths = [fixed or max(len(row.tokens) - 1 for row in one) for one in rows]
    labels = np.full((len(rows), max(map(len, rows)), LABELS + max(widths)), IGNORED, np.int64)
    labels[:, :, 0] = -1
    ids, masks = [], []
    for number, (own, width) in enumerate(zip(rows, widths, strict=True)):
        ids.append(np.zeros((len(own), width), np.int64))
        masks.append(np.zeros((len(own), width), np.int64))
        mark = checksum(task.requests[number][0].doc)
        for place, row in enumerate(own):
            read = len(row.tokens) - 1
            ids[-1][place, :read] = row.tokens[:-1]
            masks[-1][place, :read] = 1
            labels[number, place, :LABELS] = number, mark, row.request
            scored = slice(LABELS + read - row.scored, LABELS + read)
            labels[number, place, scored] = row.tokens[-row.scored :]
    positions = [np.maximum(mask.cumsum(axis=1) - 1, 0) for mask in masks]
    kinds = [np.zeros_like(one) for one in ids]
    made = dict(zip(_INPUTS, map(objects, (ids, masks, positions, kinds)), strict=True))
    feeds = {spec.name: made[spec.name] for spec in inputs if spec.name in made}
    return Dataset(feeds, labels, source=str(task.name))
