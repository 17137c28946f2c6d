"""Which products of 8-bit integers may saturate on CPUs without VNNI.

`vpmaddubsw` multiplies u8 activations by s8 weights and adds the products of two neighbours along
the input channels in 16 bits, with saturation:

    sat16(x0 * w0 + x1 * w1)        0 <= x <= 255:  exact for all x where |w0 + w1| <= 128

because 255 * 128 = 32 640 fits, and products of different sign cannot leave 16 bits. The order of
the input channels decides who is whose neighbour. ONNX Runtime packs K in groups of four (MLAS,
`QgemmU8S8KernelAvx2`, `QgemvU8S8KernelAvx2`), so channel 2j meets 2j + 1, and the last one of an
odd K meets zero. A convolution takes its kernel either place by place with all channels of each
(MLAS im2col; `ConvSym`; oneDNN, which pads the channels of each place to four), or channel by
channel: all three orders must be safe. u8 weights go through kernels that widen to 16 bits first.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

__all__ = ["LARGEST_PAIR", "channel_pairs", "may_saturate", "worst_pairs"]

LARGEST_PAIR = 128
"""Largest |w0 + w1| of neighbours for which no activation saturates."""

_PIECE = 1 << 22
"""Elements of a matrix whose pairs are added together."""


def worst_pairs(weight: np.ndarray, axis: int) -> np.ndarray:
    """Return max |w0 + w1| over neighbours for each output channel, [N].

    Args:
        weight: A matrix, or the kernel [O, I, ..] of a convolution.
        axis: Its output channels; 0 of a kernel.
    """
    found = [_worst(rows) for rows in channel_pairs(weight, axis)]
    return np.asarray(np.maximum.reduce(found))


def may_saturate(weight: np.ndarray, axis: int | None) -> bool:
    """Whether u8 activations exist for which a product by s8 weights leaves 16 bits.

    Args:
        weight: Integers of a matrix [.., K, N], of its transpose with `axis` 0, or of a kernel.
        axis: Output channels of a matrix; None where it is not known: both are looked at.
    """
    if weight.size == 0 or max(int(weight.max()), -int(weight.min())) <= LARGEST_PAIR // 2:
        return False
    axes = (0, 1) if axis is None and weight.ndim == 2 else (axis or 0,)
    return any(bool((worst_pairs(weight, a) > LARGEST_PAIR).any()) for a in axes)


def channel_pairs(weight: np.ndarray, axis: int) -> Iterator[np.ndarray]:
    """Yield the weights as rows [N, K], in every order in which kernels take the input channels."""
    if weight.ndim == 2:
        yield weight if axis == 0 else weight.T
        return
    channels, inner = weight.shape[:2]
    by_channel = weight.reshape(channels, inner, -1)
    by_place = by_channel.transpose(0, 2, 1)
    yield by_channel.reshape(channels, -1)
    yield by_place.reshape(channels, -1)
    if inner % 2:
        padded = np.pad(by_place, ((0, 0), (0, 0), (0, 1)))
        yield padded.reshape(channels, -1)


def _worst(rows: np.ndarray) -> np.ndarray:
    found = np.zeros(len(rows), np.int64 if rows.dtype.kind in "iu" else np.float32)
    step = max(_PIECE // max(rows.shape[1], 1), 1)
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        part = part.astype(np.int32 if part.dtype.kind in "iu" else np.float32, copy=False)
        even = part.shape[1] // 2 * 2
        pairs = np.abs(part[:, 0:even:2] + part[:, 1:even:2])
        worst = pairs.max(axis=1, initial=0)
        if even < part.shape[1]:
            worst = np.maximum(worst, np.abs(part[:, -1]))
        found[start : start + step] = worst
    return found
