"""How far outputs are from those of the original: a number that adds up over independent errors.

A model of language gives scores over its vocabulary, of which a softmax is taken: what is the same
for all scores of a position changes nothing, so their relative error says little. There it is the
KL divergence in nats, elsewhere the relative squared error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from irtools.data import select_rows

__all__ = ["Divergence"]

_VOCABULARY = 1000
"""Scores from which on they are those of a vocabulary."""


class Divergence:
    """Sums over calls."""

    def __init__(self) -> None:
        self._nats: list[tuple[float, int]] = []
        self._relative: list[float] = []

    def update(
        self,
        expected: Mapping[str, np.ndarray],
        found: Mapping[str, np.ndarray],
        keep: np.ndarray | None,
    ) -> None:
        """Add the outputs of one call.

        Args:
            expected: Of the original.
            found: Of another model.
            keep: [B, S], 0 where a position is padding; None where all count.
        """
        for name in _comparable(expected, found):
            a, b = (_rows(side[name], keep) for side in (expected, found))
            if a.shape[1] >= _VOCABULARY:
                self._nats.append((_kl(a, b), len(a)))
            else:
                energy = float(np.square(a).sum()) or 1.0
                self._relative.append(float(np.square(a - b).sum()) / energy)

    def result(self) -> float:
        """Return nats per position where there are scores of a vocabulary, else relative error."""
        if self._nats:
            total = sum(count for _, count in self._nats)
            return sum(nats for nats, _ in self._nats) / max(total, 1)
        return float(np.mean(self._relative)) if self._relative else 0.0


def _comparable(
    expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]
) -> Iterable[str]:
    for name, array in expected.items():
        is_number = array.dtype.kind == "f" and array.ndim and array.size
        if is_number and name in found and found[name].shape == array.shape:
            yield name


def _rows(array: np.ndarray, keep: np.ndarray | None) -> np.ndarray:
    wide = array.reshape(-1, 1) if array.ndim == 1 else array
    if keep is not None and wide.ndim == 3 and wide.shape[:2] == keep.shape:
        return select_rows(wide, -1, keep.astype(bool)).astype(np.float64)
    return wide.reshape(-1, wide.shape[-1]).astype(np.float64)


def _kl(a: np.ndarray, b: np.ndarray) -> float:
    """Return the sum over rows of KL(softmax a || softmax b), in nats."""
    p, q = _log_softmax(a), _log_softmax(b)
    return float((np.exp(p) * (p - q)).sum())


def _log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max(axis=1, keepdims=True)
    logs: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs
