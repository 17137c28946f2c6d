"""Padding of token inputs, as the attention mask marks it."""

from __future__ import annotations

from collections.abc import Container, Mapping

import numpy as np

from irtools.data.signature import Shape
from irtools.model import PaddedOutput

__all__ = [
    "columns_are_fixed",
    "cut_columns",
    "find_columns",
    "padding_mask",
    "put_at_padding",
]

_MASK_NAMES = ("attention_mask", "input_mask")


def padding_mask(feeds: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Return the mask [N, S] that marks padding with 0, or None where there is none.

    A mask that spans more than the tokens fed (a decoder's past included) says nothing about
    the columns of the other inputs, so it does not count.
    """
    for name in _MASK_NAMES:
        mask = feeds.get(name)
        if mask is not None and mask.ndim == 2 and mask.shape[1] > 0:
            tokens = [array.shape for array in feeds.values() if array.ndim == 2]
            return mask if all(shape == mask.shape for shape in tokens) else None
    return None


def find_columns(
    feeds: Mapping[str, np.ndarray], shapes: Mapping[str, Shape | None]
) -> frozenset[str]:
    """Return the inputs whose axis 1 is the mask's, so that padding can be cut off: ids [N, S],
    features [N, S, C], boxes [N, S, 4].

    None can be cut where the model states the length, or where an input has that axis elsewhere
    (a bias [N, heads, S, S], features [N, C, S]): cutting some of them would break the model.

    Args:
        shapes: Input name to the sizes that the model states.
    """
    mask = padding_mask(feeds)
    if mask is None:
        return frozenset()
    axis = next((_stated(shapes, name, 1) for name, array in feeds.items() if array is mask), None)
    found: set[str] = set()
    for name, array in feeds.items():
        for place in range(1, array.ndim):
            if array.shape[place] != mask.shape[1]:
                continue
            stated = _stated(shapes, name, place)
            if array.shape == mask.shape or stated == axis or stated is None:
                found.add(name)
                if place != 1 or isinstance(stated, int):
                    return frozenset()
    return frozenset(found)


def _stated(shapes: Mapping[str, Shape | None], name: str, axis: int) -> int | str | None:
    shape = shapes.get(name)
    return None if shape is None or len(shape) <= axis else shape[axis]


def columns_are_fixed(feeds: Mapping[str, np.ndarray], shapes: Mapping[str, Shape | None]) -> bool:
    """Whether there is a mask, and yet no padding can be cut off; see `find_columns`."""
    return padding_mask(feeds) is not None and not find_columns(feeds, shapes)


def cut_columns(
    feeds: Mapping[str, np.ndarray], names: Container[str], length: int
) -> dict[str, np.ndarray]:
    """Return the feeds with the first `length` columns of some of them."""
    return {
        name: np.ascontiguousarray(array[:, :length]) if name in names else array
        for name, array in feeds.items()
    }


def put_at_padding(
    outputs: Mapping[str, np.ndarray],
    feeds: Mapping[str, np.ndarray],
    padded: Mapping[str, PaddedOutput],
) -> dict[str, np.ndarray]:
    """Return outputs with the numbers at padding that a model notes.

    What is compared with such a model is compared with this: its padding is not that of the model
    it was made from, and its numbers there are held to the note.

    Args:
        outputs: Of any model, by name.
        feeds: What it was run on.
        padded: Outputs that hold a set number at padding.
    """
    found = dict(outputs)
    for name, note in padded.items():
        array, mask = outputs.get(name), feeds.get(note.mask)
        if array is not None and mask is not None and array.shape[:2] == mask.shape:
            hidden = (mask == note.padding).reshape(*mask.shape, *[1] * (array.ndim - 2))
            found[name] = np.where(hidden, array.dtype.type(note.number), array)
    return found
