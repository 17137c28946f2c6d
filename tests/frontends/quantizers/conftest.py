"""Token ids that the tools calibrate on."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_ids(folder: Path, length: int, padded: int) -> Path:
    """Write eight texts of token ids, the first ones padded from 5/8 of the length on."""
    ids = np.random.default_rng(0).integers(3, 90, (8, length))
    mask = np.ones_like(ids)
    words = 5 * length // 8
    ids[:padded, words:], mask[:padded, words:] = 0, 0
    path = folder / "ids.npz"
    np.savez(path, input_ids=ids, attention_mask=mask, token_type_ids=np.zeros_like(ids))
    return path
