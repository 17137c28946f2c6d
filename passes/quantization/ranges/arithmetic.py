"""Scales, zero points, rounding and saturation: the one place where they are computed.

    q  = clip(rne(x / s) + z, qmin, qmax)        rne: round half to even, as both runtimes do
    x' = s * (q - z)

`QuantizeLinear` and `DequantizeLinear` of ai.onnx are the definition; a test compares with the
runtime bit by bit. Everything here is pure: arrays in, new arrays out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irtools.analysis.saturation import LARGEST_PAIR, worst_pairs
from irtools.passes.quantization.ranges.spec import PerAxes, PerAxis, PerBlock, PerTensor, QuantSpec

__all__ = [
    "SCALE_FLOOR",
    "QParams",
    "bias_scale_floor",
    "dequantize",
    "qparams_from_range",
    "qparams_of_weight",
    "quantize",
    "quantize_bias",
    "quantize_weight",
]

SCALE_FLOOR = np.float32(2.0**-60)
"""Smallest scale. The product of two is 2^-120: still a normal float32, not flushed to zero."""

_PIECE = 1 << 20
"""Elements that are quantized together."""

_INT32_ROOM = 2.0**30
"""Largest |bias| in integers: half of int32, which leaves the sum of products the other half."""


@dataclass(frozen=True, eq=False)
class QParams:
    """Scale and zero point of a tensor.

    Attributes:
        scale: float32, [] or [C] or [.., blocks, ..], as the granularity says.
        zero_point: Integers of the spec's type, of the scale's shape.
        spec: The form they belong to.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    spec: QuantSpec


def qparams_from_range(
    low: float | np.ndarray, high: float | np.ndarray, spec: QuantSpec
) -> QParams:
    """Return the parameters that cover [low, high].

    The range is widened to hold 0, so that 0 (padding, ReLU) is exact. The zero point is rounded
    after the scale, as `DynamicQuantizeLinear` of ai.onnx does.

    Args:
        low: Smallest value, [] or one per scale.
        high: Largest value, of the same shape.
        spec: The form wanted.

    Raises:
        ValueError: A bound is not finite, or low > high.
    """
    a = np.minimum(np.asarray(low, dtype=np.float64), 0.0)
    b = np.maximum(np.asarray(high, dtype=np.float64), 0.0)
    if not (np.isfinite(a).all() and np.isfinite(b).all()) or np.any(np.asarray(low) > high):
        raise ValueError(f"[{low}, {high}] is not a range")
    qmin, qmax = spec.limits
    if spec.symmetric:
        half = (qmax - qmin) // 2
        scale = _floored(np.maximum(-a, b) / half)
        middle = 0 if qmin < 0 else half + 1
        zero = np.full(scale.shape, middle)
    else:
        scale = _floored((b - a) / (qmax - qmin))
        zero = np.clip(np.rint(qmin - a / scale), qmin, qmax)
    return QParams(scale, np.asarray(zero, dtype=spec.dtype.numpy()), spec)


def qparams_of_weight(
    weight: np.ndarray, spec: QuantSpec, scale_floor: np.ndarray | None = None
) -> QParams:
    """Return the parameters of a constant tensor from its own largest magnitudes.

    A channel of zeros takes the largest scale of its tensor: any scale is right for it, and one
    of the usual size keeps its bias inside int32.

    Args:
        weight: Finite values.
        spec: A symmetric form.
        scale_floor: Smallest scale allowed per channel (`bias_scale_floor`), of the scale's
            shape, or None.
    """
    top = _magnitudes(weight, spec)
    top = np.where(top > 0, top, top.max(initial=0.0) or 1.0)
    found = qparams_from_range(-top, top, spec)
    scale = found.scale
    if spec.pair_safe:
        assert isinstance(spec.granularity, PerAxis)
        scale = np.maximum(scale, _pair_scale(weight, spec.granularity.axis % weight.ndim, top))
    if scale_floor is not None:
        scale = np.maximum(scale, scale_floor)
    return QParams(scale.astype(np.float32), found.zero_point, spec)


def quantize(x: np.ndarray, q: QParams) -> np.ndarray:
    """Return the integers of x, as `QuantizeLinear` computes them in float32.

    Large tensors go in pieces, so that apart from the result memory holds 4 MB.
    """
    scale, zero = _spread(q, x.shape)
    if x.size <= _PIECE:
        return _quantize(x, scale, zero, q.spec)
    found = np.empty(x.shape, q.spec.dtype.numpy())
    step = max(_PIECE * len(x) // x.size, 1)
    for start in range(0, len(x), step):
        cut = slice(start, start + step)
        by_row = scale.ndim == x.ndim and len(scale) > 1
        parts = (scale[cut], zero[cut]) if by_row else (scale, zero)
        found[cut] = _quantize(x[cut], *parts, q.spec)
    return found


def _quantize(x: np.ndarray, scale: np.ndarray, zero: np.ndarray, spec: QuantSpec) -> np.ndarray:
    qmin, qmax = spec.limits
    steps = np.asarray(x.astype(np.float32, copy=False) / scale)
    np.rint(steps, out=steps)
    steps += zero
    return np.asarray(np.clip(steps, qmin, qmax, out=steps).astype(spec.dtype.numpy()))


def dequantize(integers: np.ndarray, q: QParams) -> np.ndarray:
    """Return the float32 values that integers stand for."""
    scale, zero = _spread(q, integers.shape)
    if integers.dtype == np.int32:
        return np.asarray((integers.astype(np.float64) * scale).astype(np.float32))
    return np.asarray((integers.astype(np.float32) - zero) * scale)


def quantize_weight(
    weight: np.ndarray, spec: QuantSpec, scale_floor: np.ndarray | None = None
) -> tuple[np.ndarray, QParams]:
    """Return the integers of a constant tensor and their parameters."""
    found = qparams_of_weight(weight, spec, scale_floor)
    return quantize(weight, found), found


def bias_scale_floor(bias: np.ndarray, activation_scale: float) -> np.ndarray:
    """Return the smallest weight scale per channel that keeps the bias inside int32.

    The bias is stored in steps of s_x * s_w[n]. Where that is tiny compared with the bias, s_w[n]
    is enlarged: the channel's products are negligible next to its bias then.

    Args:
        bias: [N].
        activation_scale: s_x.
    """
    floor = np.abs(bias.astype(np.float64)) / (_INT32_ROOM * float(activation_scale))
    return floor.astype(np.float32)


def quantize_bias(bias: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return a bias as int32 in steps of `scale` = s_x * s_w, both [N]."""
    steps = np.rint(bias.astype(np.float64) / scale.astype(np.float64))
    return np.clip(steps, -(2.0**31), 2.0**31 - 1).astype(np.int32)


def _pair_scale(weight: np.ndarray, axis: int, top: np.ndarray) -> np.ndarray:
    """Return the smallest scale per channel with which no two neighbours leave 16 bits.

    Rounding may add half a step to each of the two, so their sum before it is held one step below
    the limit. Half the range for the largest magnitude is safe for any neighbours, and enough.
    """
    pairs = worst_pairs(weight, axis).astype(np.float64) / (LARGEST_PAIR - 1)
    return np.asarray(np.minimum(pairs, top.astype(np.float64) / (LARGEST_PAIR // 2)))


def _floored(scale: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(scale.astype(np.float32), SCALE_FLOOR))


def _magnitudes(weight: np.ndarray, spec: QuantSpec) -> np.ndarray:
    # Both ends in place of the magnitudes, which would be a copy of the weight.
    w = weight.astype(np.float32, copy=False)
    match spec.granularity:
        case PerTensor():
            return np.asarray(np.maximum(w.max(initial=0.0), -w.min(initial=0.0)))
        case PerAxis(axis):
            others = tuple(i for i in range(w.ndim) if i != axis % w.ndim)
            top, low = w.max(axis=others, initial=0.0), w.min(axis=others, initial=0.0)
            return np.asarray(np.maximum(top, -low))
        case PerAxes(axes):
            others = tuple(i for i in range(w.ndim) if i not in axes)
            top = w.max(axis=others, initial=0.0, keepdims=True)
            return np.asarray(np.maximum(top, -w.min(axis=others, initial=0.0, keepdims=True)))
        case PerBlock(axis, block_size):
            starts = np.arange(0, w.shape[axis], block_size)
            low = np.minimum.reduceat(w, starts, axis=axis)
            return np.asarray(np.maximum(np.maximum.reduceat(w, starts, axis=axis), -low))


def _spread(q: QParams, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and zero point (float32) in a shape that broadcasts to `shape`."""
    zero = q.zero_point.astype(np.float32)
    match q.spec.granularity:
        case PerTensor() | PerAxes():
            return q.scale, zero
        case PerAxis(axis):
            wide = [1] * len(shape)
            wide[axis] = -1
            return q.scale.reshape(wide), zero.reshape(wide)
        case PerBlock(axis, block_size):
            rows = np.arange(shape[axis]) // block_size
            return q.scale.take(rows, axis=axis), zero.take(rows, axis=axis)
