"""The head of a GGUF file: metadata, and where each tensor is.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3. Every
count, length and offset is compared with what the file has room for before anything is made of it,
because the reader of the package `gguf` does not end on an array of 2^60 numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from irtools.checkpoints.recognize import GGUF_MAGIC
from irtools.errors import ModelError, UnsupportedError
from irtools.words import printable

__all__ = ["Head", "StoredTensor", "read_head"]

_VERSIONS = (2, 3)
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_STRING, _ARRAY = 8, 9
# A pair is at least a name of one letter, a type and one byte; a tensor the same with rank, one
# size, type and offset.
_SMALLEST_PAIR, _SMALLEST_TENSOR = 14, 33
_MAX_NAME, _MAX_RANK, _MAX_ALIGNMENT = 65_535, 4, 1 << 20


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor is.

    Attributes:
        kind: Number of its type in ggml.
        shape: The outermost axis first.
        offset: Bytes from the start of the data.
    """

    name: str
    kind: int
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Head:
    """What a file says before its data.

    Attributes:
        metadata: Key to value (`llama.block_count`).
        start: Where the data begins.
        alignment: Offsets are multiples of it.
    """

    metadata: Mapping[str, Any]
    tensors: tuple[StoredTensor, ...]
    start: int
    alignment: int


def read_head(path: Path, data: np.ndarray) -> Head:
    """Read the head of a file.

    Args:
        path: For messages.
        data: Its bytes, mapped.

    Raises:
        ModelError: It is not a GGUF file, cut off, or its counts and lengths do not fit into it.
        UnsupportedError: A version or byte order that nothing writes any more.
    """
    cursor = _Cursor(path, data)
    if bytes(data[:4]) != GGUF_MAGIC:
        raise ModelError(f"{path} is not a GGUF file: it does not begin with {GGUF_MAGIC.decode()}")
    cursor.at = 4
    (version,) = cursor.take("I", "the version")
    if version not in _VERSIONS:
        order = "; its byte order is that of another machine" if version & 0xFFFF == 0 else ""
        raise UnsupportedError(
            f"{path} is GGUF version {version}{order}; versions {_VERSIONS[0]} and {_VERSIONS[1]} "
            "in little-endian order are read: convert it with llama.cpp"
        )
    count, pairs = cursor.take("QQ", "the counts")
    cursor.refuse_count(pairs, _SMALLEST_PAIR, "metadata entries")
    cursor.refuse_count(count, _SMALLEST_TENSOR, "tensors")
    metadata: dict[str, Any] = {}
    for _ in range(pairs):
        key = cursor.name("a metadata key")
        if key in metadata:
            raise ModelError(f"{path} has the metadata key {printable(key)!r} twice")
        (kind,) = cursor.take("I", f"the type of {printable(key)!r}")
        metadata[key] = cursor.value(kind, printable(key))
    tensors = tuple(cursor.tensor() for _ in range(count))
    _refuse_repeats(path, tensors)
    alignment = _alignment(path, metadata)
    return Head(metadata, tensors, -(-cursor.at // alignment) * alignment, alignment)


def _refuse_repeats(path: Path, tensors: tuple[StoredTensor, ...]) -> None:
    seen: set[str] = set()
    for tensor in tensors:
        if tensor.name in seen:
            raise ModelError(f"{path} has the tensor {printable(tensor.name)!r} twice")
        seen.add(tensor.name)


def _alignment(path: Path, metadata: Mapping[str, Any]) -> int:
    found = metadata.get("general.alignment", 32)
    if not isinstance(found, int) or not 0 < found <= _MAX_ALIGNMENT or found & (found - 1):
        raise ModelError(
            f"{path} has the alignment {printable(found)}; expected a power of two up to "
            f"{_MAX_ALIGNMENT}"
        )
    return found


class _Cursor:
    """A place in the bytes of a file that never leaves them."""

    def __init__(self, path: Path, data: np.ndarray) -> None:
        self.path, self.data, self.at = path, data, 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def refuse_count(self, number: int, smallest: int, what: str) -> None:
        if number * smallest > self.left:
            raise ModelError(
                f"{self.path} says that it has {number} {what}, and its {len(self.data)} bytes "
                f"have room for at most {max(self.left, 0) // smallest}"
            )

    def bytes(self, size: int, what: str) -> bytes:
        if size > self.left:
            raise ModelError(
                f"{self.path} is cut off or damaged: {what} takes {size} bytes at byte {self.at}, "
                f"and the file has {len(self.data)}"
            )
        found = self.data[self.at : self.at + size].tobytes()
        self.at += size
        return found

    def take(self, form: str, what: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{form}", self.bytes(struct.calcsize(f"<{form}"), what))

    def name(self, what: str) -> str:
        (length,) = self.take("Q", f"the length of {what}")
        if not 0 < length <= _MAX_NAME:
            raise ModelError(f"{self.path} has {what} of {length} bytes; expected 1 to {_MAX_NAME}")
        try:
            return self.bytes(length, what).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ModelError(f"{self.path} has {what} that is not UTF-8") from error

    def text(self, what: str) -> str:
        (length,) = self.take("Q", f"the length of {what}")
        # Tokens of some vocabularies are parts of characters.
        return self.bytes(length, what).decode("utf-8", errors="replace")

    def value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self.text(f"the text of {key!r}")
        if kind == _ARRAY:
            return self.array(key)
        (found,) = self.take(self.form(kind, key), f"the value of {key!r}")
        return found

    def array(self, key: str) -> list[Any]:
        kind, length = self.take("IQ", f"the array {key!r}")
        if kind == _STRING:
            self.refuse_count(length, 8, f"texts in {key!r}")
            return [self.text(f"a text of {key!r}") for _ in range(length)]
        form = self.form(kind, key)
        self.refuse_count(length, struct.calcsize(f"<{form}"), f"numbers in {key!r}")
        return list(self.take(f"{length}{form}", f"the numbers of {key!r}"))

    def form(self, kind: int, key: str) -> str:
        if kind not in _SCALARS:
            what = "an array of arrays" if kind == _ARRAY else f"of the unknown type {kind}"
            raise ModelError(f"{self.path} is damaged: the metadata {key!r} is {what}")
        return _SCALARS[kind]

    def tensor(self) -> StoredTensor:
        name = self.name("a tensor name")
        where = f"the description of tensor {printable(name)!r}"
        (rank,) = self.take("I", where)
        if not 0 < rank <= _MAX_RANK:
            raise ModelError(
                f"{self.path}: tensor {printable(name)!r} has {rank} axes, expected 1 to "
                f"{_MAX_RANK}"
            )
        sizes = self.take("Q" * rank, where)
        kind, offset = self.take("IQ", where)
        # GGUF counts the innermost axis first.
        return StoredTensor(name, kind, tuple(reversed(sizes)), offset)
