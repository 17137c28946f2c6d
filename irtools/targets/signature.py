"""What a compiled model takes, and whether feeds fit it. Shared by all runners."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from irtools.errors import DataError

__all__ = ["Feeds", "InputSlot", "check_feeds", "wanted_outputs"]

Feeds = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class InputSlot:
    """One input of a compiled model.

    Attributes:
        dtype: Element type; None where it is no dense tensor, and then not checked.
        shape: Sizes, None where dynamic; None where the rank is unknown.
        required: False for weights that a caller may override.
    """

    name: str
    dtype: np.dtype | None
    shape: tuple[int | None, ...] | None
    required: bool = True


def check_feeds(slots: Sequence[InputSlot], feeds: Feeds) -> dict[str, np.ndarray]:
    """Return the feeds, contiguous, in the order of `slots`.

    Raises:
        DataError: An input is missing, unknown, or of another type or shape.
    """
    missing = [slot.name for slot in slots if slot.required and slot.name not in feeds]
    if missing:
        raise DataError(f"no data for input {_names(missing)}; got {_names(feeds) or 'nothing'}")
    known = {slot.name: slot for slot in slots}
    unknown = [name for name in feeds if name not in known]
    if unknown:
        raise DataError(f"the model has no input {_names(unknown)}; its inputs are {_names(known)}")
    return {slot.name: _fit(slot, feeds[slot.name]) for slot in slots if slot.name in feeds}


def wanted_outputs(known: Sequence[str], wanted: Sequence[str] | None) -> tuple[str, ...]:
    """Return the outputs to fetch; all where `wanted` is None.

    Raises:
        DataError: The model has no output of that name.
    """
    if wanted is None:
        return tuple(known)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise DataError(
            f"the model has no output {_names(unknown)}; its outputs are {_names(known)}"
        )
    return tuple(wanted)


def _fit(slot: InputSlot, array: np.ndarray) -> np.ndarray:
    if slot.dtype is None:
        return array
    found = np.asarray(array)
    if not _same_type(found.dtype, slot.dtype):
        raise DataError(f"input {slot.name!r} wants {slot.dtype}, got {found.dtype}")
    if slot.shape is not None and not _same_shape(found.shape, slot.shape):
        wanted = "x".join("?" if size is None else str(size) for size in slot.shape)
        got = "x".join(map(str, found.shape))
        raise DataError(f"input {slot.name!r} wants shape [{wanted}], got [{got}]")
    # ascontiguousarray would turn a scalar into a vector of one.
    return found if found.flags.c_contiguous else np.ascontiguousarray(found)


def _same_type(found: np.dtype, wanted: np.dtype) -> bool:
    return found == wanted or (wanted.kind == "O" and found.kind in "OUS")


def _same_shape(found: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(found) == len(wanted) and all(
        b is None or a == b for a, b in zip(found, wanted, strict=True)
    )


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
