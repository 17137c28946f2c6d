"""How a cache is turned before it is rounded; imports nothing but numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["TURNED_BITS", "CacheTurn", "nearest_codes"]

TURNED_BITS = 4
"""Of the codes of what is turned."""


@dataclass(frozen=True, eq=False)
class CacheTurn:
    """See `irtools.analysis.cache_codes`.

    Attributes:
        offset: m, float32 [G * D].
        forth: T, float32 [G, D, D].
        back: B, float32 [G, D, D].
        coarse: Step of r, float32 [G * D], which is above all values where r is zero; None: r is
            zero everywhere.
    """

    offset: np.ndarray
    forth: np.ndarray
    back: np.ndarray
    coarse: np.ndarray | None = None

    def turned(self, rows: np.ndarray) -> np.ndarray:
        """Return what is rounded of keys or values, x - r(x), both [.., G, P, D]."""
        x = (rows - self._by_head(self.offset)) @ self.forth
        if self.coarse is not None:
            steps = self._by_head(self.coarse)
            x = x - nearest_codes(x, steps, TURNED_BITS) * steps
        return np.asarray(x)

    def restored(self, rounded: np.ndarray) -> np.ndarray:
        """Return keys or values of what was rounded, both [.., G, P, D]."""
        return np.asarray(rounded @ self.back + self._by_head(self.offset))

    def _by_head(self, array: np.ndarray) -> np.ndarray:
        return array.reshape(len(self.forth), 1, -1)


def nearest_codes(numbers: np.ndarray, steps: np.ndarray, bits: int) -> np.ndarray:
    """Return the signed code of so many bits that is nearest to each number, as floats."""
    most = 2 ** (bits - 1) - 1
    return np.asarray(np.rint(numbers / steps).clip(-most - 1, most))
