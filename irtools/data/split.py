"""Splitting samples: some to choose by, others to quote figures of."""

from __future__ import annotations

import numpy as np

from irtools.data.base import Dataset
from irtools.errors import DataError

__all__ = ["halves"]


def halves(data: Dataset, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Split at random into two parts of equal size; the second has the odd sample.

    Args:
        seed: Same seed, same halves.

    Raises:
        DataError: There are not enough samples for two parts.
    """
    step = data.fixed_batch or 1
    first = len(data) // (2 * step) * step
    if not first:
        raise DataError(
            f"{data.source} holds {len(data)} samples, too few to choose by one half and quote the "
            "other: give more, or other samples with --holdout"
        )
    order = np.random.default_rng(seed).permutation(len(data))
    chosen, quoted = (data.select(np.sort(part)) for part in (order[:first], order[first:]))
    return chosen.with_digest(), quoted.with_digest()
