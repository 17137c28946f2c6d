"""GPTQ and AWQ: codes, scales and zero points of groups of input channels, packed into words.

    w[n, k] = s[g, n] (q[k, n] - z[g, n]),  g = the group of input channel k

The product is exact in float32 for scales of 16 bits and codes of up to 8. Programs that compute
in half precision round it once more; that is theirs and not the checkpoint's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from irtools.checkpoints.methods.base import FLOATS, Layout
from irtools.checkpoints.packing import unpack_words
from irtools.checkpoints.parts import Parts
from irtools.errors import UnsupportedError

__all__ = ["Awq", "Gptq", "sizes_of"]

_WORD = 32
# Where the eight codes of a word belong, by their place in it from the lowest bits on.
_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)


def sizes_of(entry: Mapping[str, Any], key: str, *others: str) -> frozenset[int]:
    """Return every value of a key that a config gives, for all weights or for some of them.

    Args:
        others: Keys of tables from module to its own values.
    """
    tables = [t for name in others if isinstance(t := entry.get(name), dict)]
    own = [values for table in tables for values in table.values() if isinstance(values, dict)]
    found = [entry.get(key), *(values.get(key) for values in own)]
    return frozenset(value for value in found if type(value) is int)


@dataclass(frozen=True)
class Gptq:
    """GPTQ's layout, which AutoRound writes as well.

    Attributes:
        bits: Those that the config speaks of; empty: none.
        groups: Sizes of groups that it speaks of; -1: all input channels.
        shifted: Zero points are stored less one.
    """

    main: ClassVar[str] = "qweight"
    others: ClassVar[tuple[str, ...]] = ("qzeros", "scales", "g_idx")
    unread: ClassVar[tuple[str, ...]] = ()

    bits: frozenset[int]
    groups: frozenset[int]
    shifted: bool = True

    def weight(self, parts: Parts) -> np.ndarray:
        scales = parts.read("scales", FLOATS, 2).astype(np.float32)
        packed = parts.read("qweight", ("I32",), 2)
        count, outputs = scales.shape
        zeros = parts.read("qzeros", ("I32",), 2)
        bits = _bits(parts, zeros.shape, outputs, self.bits)
        inputs = packed.shape[0] * _WORD // bits
        if packed.shape != (inputs * bits // _WORD, outputs) or zeros.shape[0] != count:
            raise parts.error(
                f"qweight {list(packed.shape)} does not fit scales {list(scales.shape)} and qzeros "
                f"{list(zeros.shape)} of {bits} bits"
            )
        codes = unpack_words(packed.T, bits, inputs)
        points = unpack_words(zeros, bits, outputs).astype(np.int16)
        if self.shifted:
            # A zero point of 0 is stored as -1, which is all ones.
            points = (points + 1) & ((1 << bits) - 1)
        group = self._group_of(parts, inputs, count)
        return _restored(codes, points.T[:, group], scales.T[:, group])

    def layout(self, parts: Parts) -> Layout:
        if not _has_order(parts):
            return Layout.BLOCKS
        group = parts.read("g_idx", ("I32", "I64"), 1)
        return Layout.BLOCKS if (np.diff(group) >= 0).all() else Layout.SCATTERED

    def _group_of(self, parts: Parts, inputs: int, count: int) -> np.ndarray:
        size = _group_size(parts, inputs, count, self.groups)
        if not _has_order(parts):
            return np.arange(inputs) // size
        group = parts.read("g_idx", ("I32", "I64"), 1)
        if group.shape != (inputs,) or group.min() < 0 or group.max() >= count:
            raise parts.error(
                f"g_idx of {list(group.shape)} numbers groups {group.min()} to {group.max()}, "
                f"expected {inputs} numbers from 0 to {count - 1}"
            )
        return np.asarray(group)


@dataclass(frozen=True)
class Awq:
    """AutoAWQ's layout for GEMM: eight output channels a word, in an order of their own."""

    main: ClassVar[str] = "qweight"
    others: ClassVar[tuple[str, ...]] = ("qzeros", "scales")
    unread: ClassVar[tuple[str, ...]] = ()

    bits: frozenset[int]
    groups: frozenset[int]

    def weight(self, parts: Parts) -> np.ndarray:
        scales = parts.read("scales", FLOATS, 2).astype(np.float32)
        packed = parts.read("qweight", ("I32",), 2)
        zeros = parts.read("qzeros", ("I32",), 2)
        count, outputs = scales.shape
        bits = _bits(parts, packed.shape, outputs, self.bits)
        if bits != 4:
            raise UnsupportedError(
                f"{parts.folder}: {parts.name!r} is AWQ with {bits} bits; 4 bits are read"
            )
        inputs = packed.shape[0]
        if zeros.shape != (count, packed.shape[1]):
            raise parts.error(
                f"qzeros is {list(zeros.shape)}, and qweight {list(packed.shape)} with scales "
                f"{list(scales.shape)} needs {[count, packed.shape[1]]}"
            )
        group = np.arange(inputs) // _group_size(parts, inputs, count, self.groups)
        codes, points = (_in_order(unpack_words(words, 4, outputs)) for words in (packed, zeros))
        return _restored(codes.T, points.T[:, group].astype(np.int16), scales.T[:, group])

    def layout(self, parts: Parts) -> Layout:
        return Layout.BLOCKS


def _has_order(parts: Parts) -> bool:
    """Whether groups are numbered. Some tools write an empty `g_idx` where they are in order."""
    return parts.has("g_idx") and parts.shape("g_idx") != (0,)


def _restored(codes: np.ndarray, zeros: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return s (q - z), all of them [outputs, inputs]."""
    found: np.ndarray = (codes.astype(np.int16) - zeros).astype(np.float32) * scales
    return found


def _in_order(codes: np.ndarray) -> np.ndarray:
    grouped = codes.reshape(*codes.shape[:-1], -1, len(_AWQ_ORDER))
    return grouped[..., _AWQ_ORDER].reshape(codes.shape)


def _bits(parts: Parts, packed: tuple[int, ...], outputs: int, allowed: frozenset[int]) -> int:
    """Return the bits of a code: as many as the words have for the output channels."""
    bits, rest = divmod(packed[1] * _WORD, outputs) if outputs else (0, 1)
    if rest or not 2 <= bits <= 8:
        raise parts.error(
            f"{packed[1]} words for {outputs} output channels are not a whole number of 2 to 8 "
            "bits each"
        )
    if allowed and bits not in allowed:
        raise parts.contradiction(f"holds codes of {bits} bits", _either(allowed))
    return bits


def _group_size(parts: Parts, inputs: int, count: int, allowed: frozenset[int]) -> int:
    for size in sorted(inputs if group == -1 else group for group in allowed):
        if size > 0 and -(-inputs // size) == count:
            return size
    if allowed:
        raise parts.contradiction(
            f"has scales of {count} groups for {inputs} input channels",
            f"groups of {_either(allowed)}",
        )
    if count == 0 or inputs % count:
        raise parts.error(f"{count} groups do not divide {inputs} input channels")
    return inputs // count


def _either(numbers: frozenset[int]) -> str:
    return " or ".join(map(str, sorted(numbers)))
