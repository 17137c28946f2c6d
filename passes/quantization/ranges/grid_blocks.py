"""Codes, steps and minima of blocks, found from their numbers.

The smallest distance of two numbers of a block is a whole number of steps, most often one. It shows
how many steps n the range of the block has, and the step is range / n. Steps and minima have fewer
bits than that quotient: 11 in float16, 17 or 19 where a scale of scales was multiplied in. Rounded
to so many they are what a checkpoint had, and every number is computed again from them to prove it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import numpy as np

__all__ = ["Zero", "are_half", "is_out_of_reach", "solve"]

Zero: TypeAlias = Literal["integer", "float"]
Solution: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]

_FLOAT_BITS, _HALF_BITS = 24, 11
# Bits of the steps that checkpoints have. Steps of whole numbers may have all of float32; with a
# minimum of as many bits as well, nearly any few numbers would lie on some grid.
_WIDTHS: Mapping[Zero, tuple[tuple[int, ...], ...]] = {
    "integer": ((_HALF_BITS, 17, 19), (_FLOAT_BITS,)),
    "float": ((_HALF_BITS, 17, 19),),
}
_NEAR = np.float32(2.0**-18)
"""How far a number may be from the grid of an unrounded step, as a share of the largest one."""
_WORK = 100
"""Times that a block is looked at, on average, before its weight counts as on no grid."""
_MOST_SHIFTS = 32
"""Codes that begin higher are those of no checkpoint: ranges are chosen to begin at their first."""


def solve(parts: np.ndarray, bits: int, zero: Zero) -> Solution | None:
    """Return codes int16 [n, g], steps and minima float32 [n] of blocks [n, g].

    Whole numbers times the step are `integer`, whose minima are 0; others are `float`.

    Returns:
        None where a block is on no grid of so many bits.
    """
    return _Blocks(parts, 1 << bits, zero).solution()


def is_out_of_reach(parts: np.ndarray, bits: int) -> bool:
    """Whether numbers of a block [n, g] are too close to each other for a grid of so many bits."""
    blocks = _Blocks(parts, 1 << bits, "float")
    return not blocks.finite or bool((np.rint(blocks.spans()) >= 1 << bits).any())


def are_half(numbers: np.ndarray) -> np.ndarray:
    """Return which float32 numbers float16 has as well."""
    with np.errstate(over="ignore"):
        found: np.ndarray = numbers.astype(np.float16).astype(np.float32) == numbers
    return found


class _Blocks:
    """Blocks [n, g] whose grids are sought, and what is known of each of them."""

    def __init__(self, parts: np.ndarray, levels: int, zero: Zero) -> None:
        self._parts, self._levels, self._has_minima = parts, levels, zero == "float"
        self._low, self._top = parts.min(axis=1), parts.max(axis=1)
        self._peak = np.maximum(np.abs(self._low), np.abs(self._top))
        self._codes = np.zeros(parts.shape, np.int16)
        # 0 where all numbers are the same: k-quants store it so.
        self._scale = np.zeros(len(parts), np.float32)
        self._minimum = np.zeros(len(parts), np.float32)
        self._open = self._peak > 0
        self._work = _WORK * len(parts)
        if self._has_minima:
            self._settle_flat()

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self._peak).all())

    def spans(self) -> np.ndarray:
        """Return how often the smallest distance of two numbers goes into the range of a block."""
        if self._has_minima:
            ordered, whole = np.sort(self._parts, axis=1), self._top - self._low
        else:
            # Magnitudes are whole numbers of steps away from each other, and from zero.
            ordered, whole = np.sort(np.abs(self._parts), axis=1), self._peak
            ordered = np.concatenate([np.zeros_like(whole)[:, None], ordered], axis=1)
        gaps = np.diff(ordered, axis=1)
        smallest = np.where(gaps > _NEAR * self._peak[:, None], gaps, np.inf).min(axis=1)
        return np.where(self._open, whole / smallest, 0)

    def solution(self) -> Solution | None:
        if not self.finite:
            return None
        spans = self.spans()
        for widths in _WIDTHS["float" if self._has_minima else "integer"]:
            for share in range(1, self._levels):
                at = np.flatnonzero(self._open)
                if not at.size:
                    return self._codes, self._scale, self._minimum
                wide = np.rint(spans[at] * np.float32(share))
                fits = wide < self._levels
                if self._work < 0 or (share == 1 and not fits.all()):
                    return None
                if not fits.any():
                    break
                self._try(at[fits], wide[fits], widths)
        return None

    def _settle_flat(self) -> None:
        """Take blocks of one number."""
        flat = self._low == self._top
        self._minimum[flat] = self._low[flat]
        self._open &= ~flat

    def _try(self, at: np.ndarray, spans: np.ndarray, widths: tuple[int, ...]) -> None:
        """Test blocks for so many steps in their range; of whole numbers, in their peak."""
        self._work -= at.size
        parts, (start, step) = self._parts[at], self._steps(at, spans)
        codes = np.rint((parts - start[:, None]) / step[:, None])
        away = np.abs(codes * step[:, None] + start[:, None] - parts).max(axis=1)
        near = away <= _NEAR * self._peak[at]
        near &= codes.max(axis=1) - codes.min(axis=1) < self._levels
        at, codes, step = at[near], codes[near], step[near]
        # Where codes do not begin at 0, the minimum is so many steps further down.
        for shift in range(_MOST_SHIFTS if self._has_minima else 1):
            for width in widths:
                if not at.size or self._work < 0:
                    return
                left = ~self._prove(at, codes, step, shift, width)
                at, codes, step = at[left], codes[left], step[left]
            room = codes.max(axis=1) + shift + 1 < self._levels
            at, codes, step = at[room], codes[room], step[room]

    def _steps(self, at: np.ndarray, spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where codes begin and the unrounded step, both [n]."""
        if self._has_minima:
            low = self._low[at]
            return low, (self._top[at] - low) / spans
        # The largest number is that many steps below zero: -8 and -128 have no mirror image.
        peak = np.where(self._top[at] == self._peak[at], self._top[at], self._low[at])
        return np.zeros_like(peak), -peak / spans

    def _prove(
        self, at: np.ndarray, codes: np.ndarray, step: np.ndarray, shift: int, width: int
    ) -> np.ndarray:
        """Compute blocks from steps of `width` bits, keep what comes out equal, and return which.

        Args:
            at: Numbers of the blocks, [n].
            codes: [n, g], the lowest 0 where there are minima.
            step: Unrounded, [n].
            shift: What the lowest code is.
        """
        self._work -= at.size
        scale, moved = _rounded(step, width), codes + np.float32(shift)
        least = np.zeros_like(scale)
        if self._has_minima:
            least = _rounded(self._low[at] - np.float32(shift) * scale, width)
        made = moved * scale[:, None] + least[:, None]
        equal: np.ndarray = (made == self._parts[at]).all(axis=1) & (scale != 0)
        if width == _HALF_BITS:
            equal &= are_half(scale) & are_half(least)
        done = at[equal]
        self._codes[done] = moved[equal].astype(np.int16)
        self._scale[done], self._minimum[done] = scale[equal], least[equal]
        self._open[done] = False
        return equal


def _rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """Return float32 numbers rounded to so many significant bits."""
    if bits == _FLOAT_BITS:
        return values
    dropped = np.uint32(_FLOAT_BITS - bits)
    half = np.uint32(1) << (dropped - np.uint32(1))
    raw = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((raw + half) >> dropped << dropped).view(np.float32)
