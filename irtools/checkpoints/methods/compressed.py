"""compressed-tensors (llm-compressor): packed codes, or integers and 8-bit floats with scales.

w[n, k] = s[b] (q[n, k] - z[b]),  b = the block of n and k
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from irtools.checkpoints.methods.base import FLOATS, Layout
from irtools.checkpoints.packing import unpack_words
from irtools.checkpoints.parts import Parts, spread
from irtools.errors import ModelError, UnsupportedError

__all__ = ["PackedCodes", "Scheme", "WholeNumbers", "read_schemes"]

_WORD = 32
_ACTIVATIONS = ("input_scale", "input_zero_point", "output_scale", "output_zero_point")


@dataclass(frozen=True)
class Scheme:
    """How a group of the config quantizes weights.

    Attributes:
        strategy: `tensor`, `channel`, `group` or `block`.
        block: Rows and columns of a block, for `group` and `block`.
    """

    bits: int
    strategy: str
    block: tuple[int, int] | None

    def blocks(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return the block of a weight."""
        if self.block is not None:
            return self.block
        return shape if self.strategy == "tensor" else (1, shape[1])

    def counts(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return how many blocks of rows and of columns a weight has."""
        rows, columns = self.blocks(shape)
        return -(-shape[0] // rows), -(-shape[1] // columns)

    def __str__(self) -> str:
        block = "" if self.block is None else f" of {self.block[0]} x {self.block[1]}"
        return f"{self.bits} bits a {self.strategy}{block}"


def read_schemes(folder: Path, entry: Mapping[str, Any]) -> tuple[Scheme, ...]:
    """Return the schemes of a config's groups.

    Raises:
        ModelError: A group does not say how its weights are quantized.
        UnsupportedError: By a strategy that is not read.
    """
    groups = entry.get("config_groups")
    if not isinstance(groups, dict):
        raise ModelError(f"{folder}: the quantization config has no config_groups")
    found = (group.get("weights") for group in groups.values() if isinstance(group, dict))
    return tuple(_scheme(folder, weights) for weights in found if weights is not None)


def _scheme(folder: Path, weights: Any) -> Scheme:
    bits = weights.get("num_bits") if isinstance(weights, dict) else None
    if type(bits) is not int or not 1 <= bits <= 8:
        raise ModelError(f"{folder}: the quantization config gives no num_bits of 1 to 8: {bits!r}")
    size, block = weights.get("group_size"), weights.get("block_structure")
    has_groups = type(size) is int and size > 0
    strategy = weights.get("strategy") or ("group" if has_groups else "channel")
    match strategy:
        case "tensor" | "channel":
            return Scheme(bits, strategy, None)
        case "group" if has_groups:
            return Scheme(bits, strategy, (1, size))
        case "block" if isinstance(block, list) and [type(n) for n in block] == [int, int]:
            return Scheme(bits, strategy, (max(block[0], 1), max(block[1], 1)))
    raise UnsupportedError(
        f"{folder}: weights quantized by the strategy {strategy!r} (group_size {size}, "
        f"block_structure {block}) are not read"
    )


@dataclass(frozen=True)
class PackedCodes:
    """`pack-quantized`: codes of 1 to 8 bits along the input channels, less half their range."""

    main: ClassVar[str] = "weight_packed"
    others: ClassVar[tuple[str, ...]] = (
        *("weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx"),
    )
    unread: ClassVar[tuple[str, ...]] = _ACTIVATIONS

    schemes: tuple[Scheme, ...]

    def weight(self, parts: Parts) -> np.ndarray:
        packed = parts.read("weight_packed", ("I32",), 2)
        given = tuple(map(int, parts.read("weight_shape", ("I64", "I32"), 1)))
        if len(given) != 2 or given[0] != packed.shape[0] or given[1] <= 0:
            raise parts.error(f"weight_shape {list(given)} does not fit {list(packed.shape)} words")
        shape = (given[0], given[1])
        scheme = self._scheme(parts, packed.shape[1], shape)
        half = 1 << (scheme.bits - 1)
        codes = unpack_words(packed, scheme.bits, shape[1]).astype(np.int16) - half
        scale = parts.read("weight_scale", FLOATS, 2).astype(np.float32)
        zeros = self._zeros(parts, scheme.bits, scale.shape)
        if parts.has("weight_g_idx"):
            group = parts.read("weight_g_idx", ("I32", "I64"), 1)
            if group.shape != (shape[1],) or group.min() < 0 or group.max() >= scale.shape[1]:
                raise parts.error(
                    f"weight_g_idx of {list(group.shape)} does not number {scale.shape[1]} groups "
                    f"of {shape[1]} input channels"
                )
            scales, points = scale[:, group], zeros[:, group]
        else:
            block = scheme.blocks(shape)
            scales = spread(scale, shape, block, parts, "weight_scale")
            points = spread(zeros, shape, block, parts, "weight_zero_point")
        found: np.ndarray = (codes - points).astype(np.float32) * scales
        return found

    def layout(self, parts: Parts) -> Layout:
        return Layout.SCATTERED if parts.has("weight_g_idx") else Layout.BLOCKS

    def _scheme(self, parts: Parts, words: int, shape: tuple[int, int]) -> Scheme:
        """Return the scheme whose packed width and number of scales are those of the tensors."""
        count = parts.shape("weight_scale")
        for scheme in self.schemes:
            fits = -(-shape[1] * scheme.bits // _WORD) == words
            if fits and count == scheme.counts(shape):
                return scheme
        raise parts.contradiction(
            f"a weight {list(shape)} in {words} words a row with scales {list(count)}",
            " or ".join(map(str, self.schemes)) or "nothing of weights",
        )

    def _zeros(self, parts: Parts, bits: int, shape: tuple[int, ...]) -> np.ndarray:
        if not parts.has("weight_zero_point"):
            return np.zeros(shape, np.int16)
        found = parts.read("weight_zero_point", ("I32", "I8"), 2)
        if found.dtype == np.int8:
            if found.shape != shape:
                raise parts.error(
                    f"weight_zero_point {list(found.shape)} does not fit scales {list(shape)}"
                )
            return found.astype(np.int16)
        if found.shape != (-(-shape[0] * bits // _WORD), shape[1]):
            raise parts.error(
                f"weight_zero_point {list(found.shape)} does not fit scales {list(shape)} of "
                f"{bits} bits"
            )
        codes = unpack_words(found.T, bits, shape[0]).T
        return codes.astype(np.int16) - (1 << (bits - 1))


@dataclass(frozen=True)
class WholeNumbers:
    """`int-quantized`, `float-quantized`, `naive-quantized`: numbers of 8 bits as they are."""

    main: ClassVar[str] = "weight_scale"
    others: ClassVar[tuple[str, ...]] = ("weight", "weight_zero_point")
    unread: ClassVar[tuple[str, ...]] = _ACTIVATIONS

    schemes: tuple[Scheme, ...]

    def weight(self, parts: Parts) -> np.ndarray:
        stored = parts.read("weight", ("I8", "F8_E4M3"), 2)
        shape = (stored.shape[0], stored.shape[1])
        scale = parts.read("weight_scale", FLOATS).astype(np.float32)
        grid = scale.reshape(-1, 1) if scale.ndim < 2 else scale
        block = self._block(parts, shape, grid.shape)
        numbers = stored.astype(np.float32)
        if parts.has("weight_zero_point"):
            zeros = parts.read("weight_zero_point", ("I8",)).astype(np.float32)
            if zeros.size != grid.size:
                raise parts.error(
                    f"weight_zero_point {list(zeros.shape)} does not fit scales {list(scale.shape)}"
                )
            numbers = numbers - spread(
                zeros.reshape(grid.shape), shape, block, parts, "weight_zero_point"
            )
        found: np.ndarray = numbers * spread(grid, shape, block, parts, "weight_scale")
        return found

    def layout(self, parts: Parts) -> Layout:
        return Layout.BLOCKS if parts.kind("weight") == "I8" else Layout.OTHER

    def _block(
        self, parts: Parts, shape: tuple[int, int], count: tuple[int, ...]
    ) -> tuple[int, int]:
        for scheme in self.schemes:
            if count == scheme.counts(shape):
                return scheme.blocks(shape)
        raise parts.contradiction(
            f"a weight {list(shape)} with scales {list(count)}",
            " or ".join(map(str, self.schemes)) or "nothing of weights",
        )
