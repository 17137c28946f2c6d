"""Tensors of a checkpoint by name, out of its safetensors files, which stay on disk."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from irtools.errors import ModelError
from irtools.words import one_line, printable

__all__ = ["StoredArray", "tensor_files", "tensors_in"]

_INDEX, _WHOLE = "model.safetensors.index.json", "model.safetensors"
_TYPES: Mapping[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


@dataclass(frozen=True)
class StoredArray:
    """Where a tensor is.

    Attributes:
        kind: Its type as safetensors names it (`BF16`).
        start: First byte in the file.
    """

    path: Path
    kind: str
    shape: tuple[int, ...]
    start: int

    def read(self) -> np.ndarray:
        """Return its values, mapped.

        Raises:
            ModelError: Of a type that numpy does not have.
        """
        if self.kind not in _TYPES:
            raise ModelError(f"{self.path} holds a tensor of the type {printable(self.kind)}")
        kind = np.dtype(_TYPES[self.kind])
        size = math.prod(self.shape) * kind.itemsize
        if size == 0:
            return np.zeros(self.shape, kind)
        raw = np.memmap(self.path, np.uint8, "r", self.start, size)
        found: np.ndarray = np.asarray(raw).view(kind).reshape(self.shape)
        return found


def tensor_files(folder: Path) -> tuple[Path, ...]:
    """Return the files that hold the weights of a checkpoint, as Transformers finds them.

    Raises:
        ModelError: The index is damaged, or names files of other folders.
    """
    index = folder / _INDEX
    if (folder / _WHOLE).is_file() or not index.is_file():
        whole = folder / _WHOLE
        return (whole,) if whole.is_file() else tuple(sorted(folder.glob("*.safetensors")))
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(places.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} cannot be read: {one_line(error)}") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise ModelError(f"{index} names {printable(name)!r}, which is not a file next to it")
    return tuple(folder / name for name in names)


def tensors_in(folder: Path) -> dict[str, StoredArray]:
    """Return every tensor of a checkpoint; reads the heads of the files alone.

    Raises:
        ModelError: A file is damaged or absent, or two hold one name.
    """
    found: dict[str, StoredArray] = {}
    for path in tensor_files(folder):
        for name, stored in _tensors_of(path):
            if name in found:
                raise ModelError(
                    f"{path} and {found[name].path.name} both hold {printable(name)!r}"
                )
            found[name] = stored
    return found


def _tensors_of(path: Path) -> list[tuple[str, StoredArray]]:
    from safetensors import SafetensorError, safe_open

    try:
        # The library checks lengths and offsets; numpy alone has no 8-bit and brain floats.
        with safe_open(path, framework="np"):
            pass
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            head = json.loads(stream.read(length))
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{path}: weights cannot be loaded: {one_line(error)}") from error
    head.pop("__metadata__", None)
    return [
        (
            name,
            StoredArray(path, e["dtype"], tuple(e["shape"]), 8 + length + e["data_offsets"][0]),
        )
        for name, e in head.items()
    ]
