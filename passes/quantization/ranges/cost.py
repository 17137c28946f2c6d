"""What quantizing a weight is predicted to cost, from statistics of its input alone.

For Y = X W with columns of X taken as uncorrelated (the diagonal of X^T X):

    error  = sum_k E[x_k^2] ||W_k - W'_k||^2  +  s_x^2 / 12 ||W||^2
    signal = sum_k E[x_k^2] ||W_k||^2

and the cost is error / signal: the relative squared error of the output, 10^(-SQNR/10).
`s_x^2 / 12` is the noise of rounding to steps of s_x.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["bias_shift", "block_noise", "matrix_view", "relative_error", "row_noise"]


_EQUAL_PEAK, _LEVELS = 4.0, 127


def matrix_view(weight: np.ndarray, axis: int, groups: int = 1) -> np.ndarray:
    """Return a weight as [input channels, everything else], channels of all groups counted.

    Args:
        weight: [K, N] with axis 1, [N, K] with axis 0, or a Conv's [O, I/g, ..] with axis 0.
        axis: The output-channel axis.
        groups: Groups of a Conv.

    Returns:
        [K, N], or for a Conv [I, (O/g) * kernel elements].
    """
    if axis == 1:
        return weight
    outer, inner = weight.shape[0] // groups, weight.shape[1]
    split = weight.reshape(groups, outer, inner, -1)
    return split.transpose(0, 2, 1, 3).reshape(groups * inner, -1)


def relative_error(
    weight: np.ndarray,
    error: np.ndarray,
    square: np.ndarray | None,
    step: float,
    exact: Sequence[int] = (),
    remaining: np.ndarray | None = None,
) -> float:
    """Predict the relative squared error of the output.

    Args:
        weight: [K, M], see `matrix_view`.
        error: W - W', of the same shape.
        square: E[x_k^2], [K]; None counts every input channel alike.
        step: s_x; 0 where the activation stays in floating point.
        exact: Input channels whose activations are not rounded.
        remaining: What takes the place of `square` for the error, where codes make up for each
            other's errors, [K].
    """
    rows = np.einsum("km,km->k", weight, weight)
    noise = np.einsum("km,km->k", error, error)
    power = np.ones(len(rows)) if square is None else square
    signal = float(power @ rows)
    if signal <= 0:
        return 0.0
    rounded = float(rows.sum(dtype=np.float64) - rows[list(exact)].sum(dtype=np.float64))
    lost = power if remaining is None else remaining
    return (float(lost @ noise) + step**2 / 12 * rounded) / signal


def block_noise(weight: np.ndarray, square: np.ndarray, block: int) -> float:
    """Predict what rounding activations to 8 bits adds, one scale per token and block.

    Kernels for weights in blocks do so. E[max x_k^2] over a block, which its steps follow, is about
    that of a channel that is larger than all others, and four times the mean of equal ones.

    Args:
        weight: [K, M].
        square: E[x_k^2], [K].
        block: Neighbours along K that share a scale.

    Returns:
        Relative squared error of the output.
    """
    rows = np.einsum("km,km->k", weight, weight)
    signal = float(square @ rows)
    if signal <= 0 or len(square) % block:
        return 0.0
    blocks = square.reshape(-1, block)
    largest = np.maximum(blocks.max(axis=1), _EQUAL_PEAK * blocks.mean(axis=1))
    return float((largest / _LEVELS**2 / 12) @ rows.reshape(-1, block).sum(axis=1)) / signal


def row_noise(weight: np.ndarray, square: np.ndarray) -> float:
    """Predict what rounding activations to 8 bits adds, one scale per token.

    The largest magnitude of K normal numbers of one size is about sqrt(2 ln K) times it.

    Args:
        weight: [K, M].
        square: E[x_k^2], [K].

    Returns:
        Relative squared error of the output.
    """
    rows = np.einsum("km,km->k", weight, weight)
    signal = float(square @ rows)
    if signal <= 0:
        return 0.0
    spread = 2 * np.log(max(len(square), 2))
    peak = max(float(square.max()), float(spread * square.mean()))
    return peak / _LEVELS**2 / 12 * float(rows.sum(dtype=np.float64)) / signal


def bias_shift(
    weight_error: np.ndarray, axis: int, mean: np.ndarray, groups: int = 1
) -> np.ndarray:
    """Return what an output loses on average to the rounding of its weight: (W - W')^T E[x].

    Adding it to the bias corrects the mean of every output channel.

    Args:
        weight_error: W - W', as stored.
        axis: Its output-channel axis.
        mean: E[x_k], [K], or per input channel of a Conv.
        groups: Groups of a Conv.

    Returns:
        [N].
    """
    if weight_error.ndim == 2:
        # In float32: a float64 mean would first copy the whole matrix.
        matrix = weight_error if axis == 1 else weight_error.T
        return np.asarray(mean.astype(np.float32) @ matrix)
    taps = weight_error.reshape(*weight_error.shape[:2], -1).sum(axis=2, dtype=np.float64)
    outer, inner = taps.shape[0] // groups, taps.shape[1]
    per_group = mean.reshape(groups, 1, inner) * taps.reshape(groups, outer, inner)
    return np.asarray(per_group.sum(axis=2).reshape(-1))
