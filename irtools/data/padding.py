"""Padding of token inputs, as the attention mask tells it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

__all__ = ["cut_columns", "padding_mask"]

_MASK_NAMES = ("attention_mask", "input_mask")


def padding_mask(feeds: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Return the mask [N, S] that marks padding with 0, or None where there is none.

    A mask that spans more than the tokens fed (a decoder's past included) tells nothing about
    the columns of the other inputs, so it does not count.
    """
    for name in _MASK_NAMES:
        mask = feeds.get(name)
        if mask is not None and mask.ndim == 2 and mask.shape[1] > 0:
            tokens = [array.shape for array in feeds.values() if array.ndim == 2]
            return mask if all(shape == mask.shape for shape in tokens) else None
    return None


def cut_columns(
    feeds: Mapping[str, np.ndarray], shape: tuple[int, ...], length: int
) -> dict[str, np.ndarray]:
    """Return the feeds with the first `length` columns of every array of the mask's shape."""
    return {
        name: np.ascontiguousarray(array[:, :length]) if array.shape == shape else array
        for name, array in feeds.items()
    }
