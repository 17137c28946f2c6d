"""Weights in blocks: 2, 4 or 8 bits, a scale for every few neighbours, chosen by squared error.

Rows are output channels here, w [R, K], and blocks lie along K:

    c  = clip(rne(w / s), lo, hi)          symmetric: lo, hi = -8, 7          of 2 bits -2, 1
    w' = s c                               affine:    lo, hi = -z, 15 - z; stored is c + z

The scale of a block is the one of least squared error among a few candidates: for codes c that
were rounded with any trial scale, s = <w, c> / <c, c> is the best, and the error left is
<w, w> - <w, c>^2 / <c, c>. Rounding once more with that s can only lessen it. (Trial scales
shrink the range step by step, as llama.cpp's k-quants and MSE calibration do.)

NF4 (Dettmers et al. 2023, QLoRA, appendix E): c is the number of the nearest of 16 quantiles of
the normal distribution, s the largest magnitude of the block.

Memory: `slabs` cuts a weight into pieces of at most `SLAB_ELEMENTS`, so that what is held at once
is the result and some ten arrays of that size, whatever the size of the weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from irtools.model import NF4_LEVELS
from irtools.passes.quantization.ranges.coded_scales import coded
from irtools.passes.quantization.ranges.spec import BlockSpec

__all__ = [
    "NF4",
    "SLAB_ELEMENTS",
    "Blocks",
    "Rounding",
    "code_limits",
    "dequantize_rows",
    "is_finite",
    "pack_codes",
    "quantize_rows",
    "slabs",
    "unpack_codes",
]

SLAB_ELEMENTS = 1 << 17
"""Elements of a weight that are looked at together: 512 kB of float32, what a core has close by."""

_TOGETHER = 1 << 11
"""Blocks whose scales are sought together."""

NF4 = np.array(NF4_LEVELS, dtype=np.float32)
_NF4_EDGES = (NF4[1:] + NF4[:-1]) / 2
_SHRINK: Mapping[int, tuple[float, ...]] = {
    2: (2.0, 1.5, 1.2, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5),
    4: (8 / 7, 1.0, 0.95, 0.9, 0.85, 0.78),
    8: (1.0,),
}
"""Trial scales by bits, as shares of the one that takes the whole range. The first is the plain one
of symmetric codes, -7 to 7, so that the result is never worse than that. Of 2 bits much is cut: of
normal weights half of the range leaves the least error."""

_SMALL = 2.0**-40
"""Weights that stay below are rounded in units of their own."""
_TINY = np.float32(2.0**-100)
"""Blocks whose magnitudes stay below count as zero: their squares leave float32."""


@dataclass(frozen=True, eq=False)
class Blocks:
    """Quantized rows.

    Attributes:
        codes: As they are stored, [R, K]: int8, or uint8 for affine and NF4.
        scale: [R, K / block], float32 or float16.
        zero_point: uint8 [R, K / block], or None where it is 0.
        minimum: Added to what codes and scales stand for, float32 [R, K / block]; None for nothing.
    """

    codes: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray | None
    spec: BlockSpec
    minimum: np.ndarray | None = None


Rounding: TypeAlias = Callable[[np.ndarray, BlockSpec], Blocks]
"""Quantizes rows [R, K] of output channels: `quantize_rows`, or one that knows the input."""


def quantize_rows(
    rows: np.ndarray, spec: BlockSpec, scale_dtype: type[np.floating] = np.float32
) -> Blocks:
    """Quantize float32 rows [R, K]; K is a multiple of the block.

    Args:
        scale_dtype: float32 or float16. Codes belong to the scale as it is stored.
    """
    top = float(np.abs(rows).max(initial=0.0))
    if 0 < top < _SMALL:
        return _quantize_small(rows, spec, scale_dtype, top)
    w = np.ascontiguousarray(rows, dtype=np.float32).reshape(-1, spec.block)
    shape = (len(rows), rows.shape[1] // spec.block)
    if spec.scheme == "nf4":
        return _quantize_nf4(w.reshape(*shape, -1), spec)
    affine = spec.scheme == "affine"
    codes = np.empty(w.shape, np.uint8 if affine else np.int8)
    scale = np.empty(len(w), scale_dtype)
    zero = np.empty(len(w), np.uint8) if affine else None
    for start in range(0, len(w), _TOGETHER):
        cut = slice(start, start + _TOGETHER)
        # Blocks side by side, so that all of them take a step at once.
        found, scale[cut], zeros = _quantize(np.ascontiguousarray(w[cut].T), spec, scale_dtype)
        codes[cut] = found.T
        if zero is not None and zeros is not None:
            zero[cut] = zeros
    blocks = Blocks(
        codes.reshape(rows.shape),
        scale.reshape(shape),
        None if zero is None else zero.reshape(shape),
        spec,
    )
    return blocks if spec.scales == "float32" else _with_coded_scales(rows, blocks)


def _quantize_small(
    rows: np.ndarray, spec: BlockSpec, scale_dtype: type[np.floating], top: float
) -> Blocks:
    """Quantize rows whose squares leave float32, in units of a power of two."""
    unit = np.float32(2.0 ** np.floor(np.log2(top)))
    found = quantize_rows(rows / unit, replace(spec, scales="float32"), np.float32)
    scale = (found.scale * unit).astype(scale_dtype)
    made = replace(found, scale=scale, spec=spec)
    return made if spec.scales == "float32" else _with_coded_scales(rows, made)


def _with_coded_scales(rows: np.ndarray, found: Blocks) -> Blocks:
    """Round rows [R, K] once more, with the nearest scales that are stored as codes."""
    parts = np.ascontiguousarray(rows, np.float32).reshape(*found.scale.shape, -1)
    zero: np.ndarray | float = 0.0
    if found.zero_point is not None:
        zero = found.zero_point.astype(np.float32)[..., None]
    is_dead = (found.codes.reshape(parts.shape) == zero).all(axis=2)
    scale = coded(np.where(is_dead, np.float32(0), found.scale))
    codes = np.rint(parts / scale[..., None]) + zero
    np.clip(codes, *code_limits(found.spec), out=codes)
    made = codes.astype(found.codes.dtype).reshape(found.codes.shape)
    return replace(found, codes=made, scale=scale)


def code_limits(spec: BlockSpec) -> tuple[float, float]:
    """Return the least and largest code as it is stored, zero point included."""
    if spec.scheme == "affine":
        return 0.0, float(2**spec.bits - 1)
    most = float(2 ** (spec.bits - 1) - 1)
    # Of 8 bits -128 is left out.
    return (-most if spec.bits == 8 else -most - 1), most


def dequantize_rows(blocks: Blocks) -> np.ndarray:
    """Return the float32 rows [R, K] that codes stand for."""
    parts = blocks.codes.reshape(*blocks.scale.shape, -1)
    scale = blocks.scale.astype(np.float32)[..., None]
    if blocks.spec.scheme == "nf4":
        numbers = NF4[parts]
    else:
        numbers = parts.astype(np.float32)
        if blocks.zero_point is not None:
            numbers -= blocks.zero_point[..., None]
    return np.asarray((numbers * scale).reshape(blocks.codes.shape))


def slabs(weight: np.ndarray, axis: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield a matrix in pieces, as rows of output channels: (channels, float32 [R, K]).

    Args:
        weight: [K, N] with axis 1, [N, K] with axis 0.
        axis: The output-channel axis.
    """
    channels, inner = weight.shape[axis], weight.shape[1 - axis]
    # A multiple of four channels, so that packed pieces end on whole bytes.
    step = max(SLAB_ELEMENTS // max(inner, 1) // 4 * 4, 4)
    for start in range(0, channels, step):
        cut = slice(start, min(start + step, channels))
        yield cut, np.asarray(weight[cut] if axis == 0 else weight[:, cut].T)


def is_finite(weight: np.ndarray) -> bool:
    """Whether no element is NaN or infinite. Takes no memory of the weight's size."""
    flat = weight.reshape(-1)
    pieces = (flat[at : at + SLAB_ELEMENTS] for at in range(0, flat.size, SLAB_ELEMENTS))
    # NaN and infinities survive as the smallest or largest element.
    return all(np.isfinite(piece.min()) and np.isfinite(piece.max()) for piece in pieces)


def pack_codes(codes: np.ndarray, bits: int) -> np.ndarray:
    """Pack codes of 2 or 4 bits into bytes, the first into the lowest bits, as ONNX stores them.

    Args:
        codes: int8 or uint8, any shape; read in row-major order.
        bits: Of a code: 2 or 4.

    Returns:
        uint8 [ceil(n bits / 8)].
    """
    each = 8 // bits
    flat = codes.reshape(-1).view(np.uint8) & np.uint8((1 << bits) - 1)
    flat = np.pad(flat, (0, -flat.size % each))
    packed = flat[0::each].copy()
    for place in range(1, each):
        packed |= flat[place::each] << np.uint8(bits * place)
    return packed


def unpack_codes(packed: np.ndarray, count: int, bits: int, *, signed: bool) -> np.ndarray:
    """Return `count` codes, int8 or uint8. The inverse of `pack_codes`."""
    each, mask = 8 // bits, np.uint8((1 << bits) - 1)
    flat = np.empty(each * packed.size, np.uint8)
    for place in range(each):
        flat[place::each] = (packed >> np.uint8(bits * place)) & mask
    codes, half = flat[:count], 1 << (bits - 1)
    return (codes ^ half).astype(np.int8) - np.int8(half) if signed else codes


def _quantize(
    w: np.ndarray, spec: BlockSpec, scale_dtype: type[np.floating]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return codes [block, N] as they are stored, scales and zero points [N] of w [block, N]."""
    low, high, zero, first = _limits(w, spec)
    scale = _best_scale(w, first, low, high, _SHRINK[spec.bits]).astype(scale_dtype)
    codes = _round(w, scale.astype(np.float32), low, high, np.empty_like(w))
    if zero is None:
        return codes.astype(np.int8), scale, None
    codes += zero
    return codes.astype(np.uint8), scale, zero


def _limits(
    w: np.ndarray, spec: BlockSpec
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]:
    """Return the least and largest code, the zero point, and the scale that cuts nothing.

    Args:
        w: [block, N].
    """
    if spec.scheme == "affine":
        top = np.float32(2**spec.bits - 1)
        a = np.minimum(w.min(axis=0), np.float32(0))
        b = np.maximum(w.max(axis=0), np.float32(0))
        first = (b - a) / top
        zero = np.rint(np.divide(-a, first, out=np.zeros_like(a), where=first > _TINY))
        zero = zero.clip(0, top)
        return -zero, top - zero, zero, first
    if spec.bits == 8:
        most = np.array(127, np.float32)
        return np.negative(most), most, None, np.abs(w).max(axis=0) / most
    at = np.abs(w).argmax(axis=0)[None]
    least = np.array(-(2 ** (spec.bits - 1)), np.float32)
    first = np.take_along_axis(w, at, axis=0)[0] / least
    return least, -least - 1, None, first


def _best_scale(
    w: np.ndarray,
    first: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    shrink: tuple[float, ...],
) -> np.ndarray:
    """Return the scale of least squared error per block, [N]; 1 for blocks of zeros."""
    best = np.zeros(first.shape, np.float32)
    scale = np.ones(first.shape, np.float32)
    live = np.abs(first) > _TINY
    codes, terms = np.empty_like(w), np.empty_like(w)
    for factor in shrink:
        trial = np.where(live, first * np.float32(factor), np.float32(1))
        _round(w, trial, low, high, codes)
        product = np.multiply(w, codes, out=terms).sum(axis=0)
        size = np.multiply(codes, codes, out=terms).sum(axis=0)
        # Of the block's energy, <w, c>^2 / <c, c> is kept.
        fitted = np.divide(product, size, out=np.zeros_like(product), where=size > 0)
        kept = fitted * product
        better = live & (kept > best)
        np.copyto(best, kept, where=better)
        np.copyto(scale, fitted, where=better)
    return scale


def _round(
    w: np.ndarray, scale: np.ndarray, low: np.ndarray, high: np.ndarray, out: np.ndarray
) -> np.ndarray:
    np.divide(w, scale, out=out)
    np.rint(out, out=out)
    np.maximum(out, low, out=out)
    np.minimum(out, high, out=out)
    return out


def _quantize_nf4(w: np.ndarray, spec: BlockSpec) -> Blocks:
    scale = np.abs(w).max(axis=-1)
    scale = np.where(scale > _TINY, scale, np.float32(1))
    codes = np.searchsorted(_NF4_EDGES, w / scale[..., None]).astype(np.uint8)
    return Blocks(codes.reshape(len(w), -1), scale, None, spec)
