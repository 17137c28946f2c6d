"""What CPUs without VNNI compute: `vpmaddubsw`, exactly, in numpy."""

from __future__ import annotations

import numpy as np


def saturating_product(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Multiply u8 [M, K] by s8 [K, N] as kernels with `vpmaddubsw` do: int32 [M, N].

    Channels 2j and 2j + 1 are multiplied and added in 16 bits with saturation; the sums of pairs
    are added in 32 bits. An odd K is padded with a zero.
    """
    assert x.dtype == np.uint8 and w.dtype == np.int8
    odd = x.shape[1] % 2
    a = np.pad(x, ((0, 0), (0, odd))).astype(np.int32)
    b = np.pad(w, ((0, odd), (0, 0))).astype(np.int32)
    total = np.zeros((len(a), b.shape[1]), np.int32)
    for k in range(0, a.shape[1], 2):
        pair = np.outer(a[:, k], b[k]) + np.outer(a[:, k + 1], b[k + 1])
        total += pair.clip(-(2**15), 2**15 - 1)
    return total


def exact_product(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Multiply the same in 32 bits, as VNNI does."""
    return x.astype(np.int32) @ w.astype(np.int32)


def worst_activations(w: np.ndarray) -> np.ndarray:
    """Return u8 rows [2N, K] that drive each column of s8 [K, N] as far up and down as can be."""
    up = np.where(w > 0, 255, 0).T
    down = np.where(w < 0, 255, 0).T
    return np.concatenate([up, down]).astype(np.uint8)
