"""How keys of a cache are turned before they are rounded; imports nothing but numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = ["CacheTurn"]


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
