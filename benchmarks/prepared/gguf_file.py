"""Reads llama.cpp's GGUF files: metadata, and tensors as float32.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 3. Only the tensor
types of the checkpoints used here are read: F32, F16, Q4_1 (blocks of 32: scale, minimum, 4-bit
codes, x = d q + m) and Q8_0 (blocks of 32: scale, 8-bit codes).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_STRING, _ARRAY = 8, 9
_Q4_1, _Q8_0 = 3, 8
_BLOCK = 32


@dataclass(frozen=True)
class Gguf:
    """An opened file.

    Attributes:
        metadata: Key to value (`llama.block_count`).
        tensors: Name to (type, shape, offset of its data).
    """

    metadata: Mapping[str, Any]
    tensors: Mapping[str, tuple[int, tuple[int, ...], int]]
    data: np.ndarray

    @classmethod
    def open(cls, path: Path) -> Gguf:
        """Read the head of a file; tensors stay on disk until they are asked for."""
        data = np.memmap(path, np.uint8, "r")
        cursor = _Cursor(data)
        if bytes(data[:4]) != b"GGUF":
            raise ValueError(f"{path} is not a GGUF file")
        cursor.at = 8
        count, pairs = cursor.take("QQ")
        metadata = {cursor.string(): cursor.value() for _ in range(pairs)}
        infos = [cursor.tensor() for _ in range(count)]
        step = int(metadata.get("general.alignment", 32))
        start = -(-cursor.at // step) * step
        return cls(metadata, {n: (k, s, start + o) for n, k, s, o in infos}, data)

    def tensor(self, name: str) -> np.ndarray:
        """Return a tensor as float32, dequantized."""
        kind, shape, offset = self.tensors[name]
        count = int(np.prod(shape))
        match kind:
            case 0:
                flat = self.data[offset : offset + 4 * count].view("<f4")
            case 1:
                flat = self.data[offset : offset + 2 * count].view("<f2").astype(np.float32)
            case 3:
                flat = _q4_1(self.data[offset : offset + count // _BLOCK * 20])
            case 8:
                flat = _q8_0(self.data[offset : offset + count // _BLOCK * 34])
            case _:
                raise ValueError(f"tensor {name} has the unknown type {kind}")
        return np.array(flat, np.float32).reshape(shape)


class _Cursor:
    def __init__(self, data: np.ndarray) -> None:
        self.data, self.at = data, 0

    def take(self, form: str) -> tuple[Any, ...]:
        size = struct.calcsize("<" + form)
        found = struct.unpack("<" + form, self.data[self.at : self.at + size].tobytes())
        self.at += size
        return found

    def string(self) -> str:
        (length,) = self.take("Q")
        text = self.data[self.at : self.at + length].tobytes().decode("utf-8")
        self.at += length
        return text

    def value(self, kind: int | None = None) -> Any:
        if kind is None:
            (kind,) = self.take("I")
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            inner, length = self.take("IQ")
            return [self.value(inner) for _ in range(length)]
        (found,) = self.take(_SCALARS[kind])
        return found

    def tensor(self) -> tuple[str, int, tuple[int, ...], int]:
        name = self.string()
        (rank,) = self.take("I")
        sizes = self.take("Q" * rank)
        kind, offset = self.take("IQ")
        # GGUF counts the innermost axis first.
        return name, kind, tuple(reversed(sizes)), offset


def _q4_1(raw: np.ndarray) -> np.ndarray:
    blocks = raw.reshape(-1, 20)
    scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
    least = blocks[:, 2:4].copy().view("<f2").astype(np.float32)
    codes = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)
    return codes.astype(np.float32) * scale + least


def _q8_0(raw: np.ndarray) -> np.ndarray:
    blocks = raw.reshape(-1, 34)
    scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
    return blocks[:, 2:].copy().view(np.int8).astype(np.float32) * scale
