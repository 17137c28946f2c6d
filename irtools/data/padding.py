"""Padding of token inputs, as the attention mask tells it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

__all__ = ["columns_are_fixed", "cut_columns", "padding_mask"]

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


def columns_are_fixed(
    feeds: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int | str | None, ...] | None]
) -> bool:
    """Whether the model states the length of an input that padding could be cut from.

    Args:
        shapes: Input name to the sizes that the model states.
    """
    mask = padding_mask(feeds)
    if mask is None:
        return False
    stated = [shapes.get(name) for name, array in feeds.items() if array.shape == mask.shape]
    return any(shape is not None and isinstance(shape[1], int) for shape in stated)


def cut_columns(
    feeds: Mapping[str, np.ndarray], shape: tuple[int, ...], length: int
) -> dict[str, np.ndarray]:
    """Return the feeds with the first `length` columns of every array of the mask's shape."""
    return {
        name: np.ascontiguousarray(array[:, :length]) if array.shape == shape else array
        for name, array in feeds.items()
    }
