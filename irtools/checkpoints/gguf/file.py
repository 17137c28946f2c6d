"""A GGUF file: metadata, and tensors as float32."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from irtools.checkpoints.gguf.head import StoredTensor, read_head
from irtools.errors import FileError, MissingExtraError, ModelError, UnsupportedError
from irtools.words import printable

__all__ = ["READ_KINDS", "Gguf", "Place"]

READ_KINDS = (
    *("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"),
)
"""Types of tensors that are read, as ggml names them."""


@dataclass(frozen=True)
class Place:
    """Where the bytes of a tensor are, and what they are.

    Attributes:
        kind: Name of its type in ggml (`Q4_1`).
        shape: Of its numbers, the outermost axis first.
        start: First byte in the file.
        rows: Shape of its bytes: the last axis in whole blocks.
    """

    kind: str
    shape: tuple[int, ...]
    start: int
    rows: tuple[int, ...]

    @property
    def end(self) -> int:
        """First byte after it."""
        return self.start + math.prod(self.rows)


@dataclass(frozen=True)
class Gguf:
    """An opened file. Its tensors stay on disk until they are asked for.

    Attributes:
        metadata: Key to value (`llama.block_count`).
        tensors: Name to place.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Place]
    data: np.ndarray

    @classmethod
    def open(cls, path: Path) -> Gguf:
        """Read and check the head of a file.

        Raises:
            FileError: It cannot be read.
            MissingExtraError: The package `gguf` is not installed.
            ModelError: It is damaged: cut off, or counts, sizes and offsets do not fit into it.
            UnsupportedError: One part of a split file, or a type of tensor that is not read.
        """
        try:
            data = np.memmap(path, np.uint8, "r")
        except OSError as error:
            raise FileError(f"cannot read {path}: {error.strerror or error}") from error
        except ValueError as error:
            raise ModelError(f"{path} is empty; expected a GGUF file") from error
        head = read_head(path, data)
        parts = head.metadata.get("split.count", 1)
        if isinstance(parts, int) and parts > 1:
            raise UnsupportedError(
                f"{path} is one of {parts} parts; merge them first: llama-gguf-split --merge "
                "FIRST-PART.gguf whole.gguf"
            )
        places = {t.name: _place(path, t, head.start) for t in head.tensors}
        _check_places(path, places, head.start, head.alignment, len(data))
        return cls(path, head.metadata, places, data)

    def tensor(self, name: str) -> np.ndarray:
        """Return a tensor as float32, exactly as ggml dequantizes it.

        Raises:
            ModelError: It holds numbers that are not finite.
        """
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        place = self.tensors[name]
        raw = np.array(self.data[place.start : place.end]).reshape(place.rows)
        found = np.asarray(dequantize(raw, GGMLQuantizationType[place.kind]), np.float32)
        if not np.isfinite(found).all():
            raise ModelError(
                f"{self.path}: tensor {printable(name)!r} ({place.kind}) holds numbers that are "
                "not finite; the file is damaged"
            )
        return found.reshape(place.shape)


def _place(path: Path, tensor: StoredTensor, start: int) -> Place:
    try:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    except ImportError as error:
        raise MissingExtraError("reading a GGUF file", "gguf") from error
    kind = {kind.value: kind for kind in GGMLQuantizationType}.get(tensor.kind)
    where = f"{path}: tensor {printable(tensor.name)!r}"
    if kind is None or kind.name not in READ_KINDS:
        what = f"number {tensor.kind}" if kind is None else kind.name
        raise UnsupportedError(f"{where} is of the type {what}; read are {', '.join(READ_KINDS)}")
    numbers, size = GGML_QUANT_SIZES[kind]
    *outer, inner = tensor.shape
    if 0 in tensor.shape or inner % numbers:
        raise ModelError(
            f"{where} has the shape {list(tensor.shape)}; expected no empty axis, and rows of "
            f"whole blocks of {numbers} ({kind.name})"
        )
    rows = (*outer, inner // numbers * size)
    return Place(kind.name, tensor.shape, start + tensor.offset, rows)


def _check_places(
    path: Path, places: Mapping[str, Place], start: int, alignment: int, size: int
) -> None:
    end, before = start, ""
    for name, place in sorted(places.items(), key=lambda item: item[1].start):
        where = f"{path}: tensor {printable(name)!r}"
        if (place.start - start) % alignment:
            raise ModelError(
                f"{where} begins at offset {place.start - start}, which is not a multiple of the "
                f"alignment {alignment}"
            )
        if place.end > size:
            raise ModelError(
                f"{where} of the shape {list(place.shape)} ({place.kind}) ends at byte "
                f"{place.end}, and the file has {size}: it is cut off or damaged"
            )
        if place.start < end:
            raise ModelError(f"{where} lies over tensor {printable(before)!r}")
        end, before = place.end, name
