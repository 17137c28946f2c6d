"""Grids that weights already lie on, found from the weights alone.

Rows are output channels here, w [R, K], and blocks lie along K. A block lies on a grid where its
float32 numbers are, to the last bit,

    integer   w = d k           k a whole number, 2^bits of them in a row at most
    float     w = fl(d q + m)   q from 0 to 2^bits - 1

as checkpoints of 4 to 8 bits store them: Q4_0, Q8_0, GPTQ and AWQ the first; Q4_1 and Q4_K the
second. All blocks of a weight lie on grids of one kind, or the weight lies on none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from irtools.passes.quantization.ranges.blocks import Blocks, Rounding, slabs
from irtools.passes.quantization.ranges.grid_blocks import Zero, are_half, is_out_of_reach, solve
from irtools.passes.quantization.ranges.spec import BlockSpec

__all__ = ["Bits", "Grid", "GridRows", "Numbers", "find_grid", "grid_rounding", "nested", "recover"]

Bits: TypeAlias = Literal[4, 8]
Numbers: TypeAlias = Literal["f16", "nested", "f32"]
"""How scales are stored without loss: as float16, as 8-bit codes times a float16 for eight of them,
or as they are."""

_BLOCKS = (128, 64, 32, 16)
_KINDS: tuple[tuple[Bits, Zero], ...] = (
    (4, "integer"),
    (4, "float"),
    (8, "integer"),
    (8, "float"),
)
_SOME_ROWS = 8
_NEST = 8


@dataclass(frozen=True)
class Grid:
    """What kind of grid a weight lies on.

    Attributes:
        bits: Of a code.
        block: Neighbours that share a step.
        zero: `integer`: whole numbers of steps; `float`: above a minimum for each block.
        signed: Whole numbers are from -2^(bits - 1) to 2^(bits - 1) - 1, with no zero point.
        numbers: How steps and minima are stored.
        middle: Taken from codes above a minimum, so that they lie around 0: what activations lose
            by rounding grows with the codes that they are multiplied by.
    """

    bits: Bits
    block: int
    zero: Zero
    signed: bool
    numbers: Numbers
    middle: int = 0

    @property
    def spec(self) -> BlockSpec:
        """The form of its codes."""
        plain = self.signed or self.zero == "float"
        return BlockSpec(self.bits, self.block, "symmetric" if plain else "affine")


@dataclass(frozen=True, eq=False)
class GridRows:
    """Rows on a grid.

    Attributes:
        codes: k or q, int16 [R, K].
        scale: d, float32 [R, K / block].
        minimum: m, float32 [R, K / block]; zeros for `integer`.
    """

    codes: np.ndarray
    scale: np.ndarray
    minimum: np.ndarray

    def restored(self) -> np.ndarray:
        """Return the float32 rows that codes stand for."""
        parts = self.codes.reshape(*self.scale.shape, -1).astype(np.float32)
        found: np.ndarray = parts * self.scale[..., None] + self.minimum[..., None]
        return found.reshape(self.codes.shape)


def find_grid(array: np.ndarray, axis: int) -> Grid | None:
    """Return the grid of a matrix, of the fewest bits and the largest blocks; None for none.

    Args:
        array: [K, N] with axis 1, [N, K] with axis 0.
        axis: The output-channel axis.
    """
    inner = array.shape[1 - axis]
    blocks = [block for block in _BLOCKS if inner % block == 0]
    if not blocks or not array.size:
        return None
    some = _some_rows(array, axis)
    # What lies on any grid lies on one of 8 bits, in the smallest blocks.
    if is_out_of_reach(some.reshape(-1, blocks[-1]), 8):
        return None
    for bits, zero in _KINDS:
        for block in blocks:
            if recover(some, bits, block, zero) is not None:
                found = _whole(array, axis, bits, block, zero)
                if found is not None:
                    return found
    return None


def recover(rows: np.ndarray, bits: Bits, block: int, zero: Zero) -> GridRows | None:
    """Return codes and steps of rows [R, K], or None where a block is not on such a grid."""
    found = solve(np.ascontiguousarray(rows, np.float32).reshape(-1, block), bits, zero)
    if found is None:
        return None
    codes, scale, minimum = found
    shape = (len(rows), rows.shape[1] // block)
    return GridRows(codes.reshape(rows.shape), scale.reshape(shape), minimum.reshape(shape))


def nested(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return numbers [R, C] as codes times a step that eight neighbours share, if they are that.

    Returns:
        int8 [R, C] and float16 [R, C / 8]; None where they are not.
    """
    if numbers.shape[1] % _NEST:
        return None
    found = recover(numbers, 8, _NEST, "integer")
    if found is None or not are_half(found.scale).all() or not _is_signed(found.codes, 8):
        return None
    return found.codes.astype(np.int8), found.scale.astype(np.float16)


def grid_rounding(grid: Grid) -> Rounding:
    """Return a rounding for a weight that lies on a grid: it changes nothing."""

    def rounding(rows: np.ndarray, spec: BlockSpec) -> Blocks:
        found = recover(rows, grid.bits, grid.block, grid.zero)
        if found is None:
            raise ValueError("rows lie on no grid of this kind")
        if grid.zero == "float":
            codes = (found.codes - grid.middle).astype(np.int8)
            return Blocks(codes, found.scale, None, spec, found.minimum)
        if spec.scheme == "symmetric":
            return Blocks(found.codes.astype(np.int8), found.scale, None, spec)
        parts = found.codes.reshape(*found.scale.shape, -1)
        # The middle where all codes are in reach of it, which runtimes take for granted.
        least = np.maximum(-parts.min(axis=2), 0)
        zero = np.full_like(least, 1 << (grid.bits - 1)) if grid.signed else least
        stored = (parts + zero[..., None]).astype(np.uint8).reshape(found.codes.shape)
        return Blocks(stored, found.scale, zero.astype(np.uint8), spec)

    return rounding


def _some_rows(array: np.ndarray, axis: int) -> np.ndarray:
    """Return a few output channels as rows [R, K], evenly spread."""
    channels = array.shape[axis]
    rows = np.unique(np.arange(_SOME_ROWS) * channels // _SOME_ROWS)
    return np.ascontiguousarray(array[rows] if axis == 0 else array[:, rows].T)


def _whole(array: np.ndarray, axis: int, bits: Bits, block: int, zero: Zero) -> Grid | None:
    """Return the grid of all rows, or None where one is on none of this kind."""
    signed, steps, most = zero == "integer", [], 0
    for _, rows in slabs(array, axis):
        found = recover(rows, bits, block, zero)
        if found is None:
            return None
        signed = signed and _is_signed(found.codes, bits)
        steps.append((found.scale, found.minimum))
        most = max(most, int(found.codes.max()))
    scale, minimum = (np.concatenate(parts) for parts in zip(*steps, strict=True))
    # Half of the range that is used, a power of two: 16 for codes of 5 bits.
    middle = 1 << max(most.bit_length() - 1, 0) if zero == "float" else 0
    return Grid(bits, block, zero, signed, _numbers(scale, minimum), middle)


def _numbers(scale: np.ndarray, minimum: np.ndarray) -> Numbers:
    """Return the smallest form that keeps all of them."""
    if are_half(scale).all() and are_half(minimum).all():
        return "f16"
    return "f32" if nested(scale) is None or nested(minimum) is None else "nested"


def _is_signed(codes: np.ndarray, bits: int) -> bool:
    half = 1 << (bits - 1)
    return bool(codes.min() >= -half and codes.max() < half)
