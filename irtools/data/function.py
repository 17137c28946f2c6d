"""Data from a function of the user's, `module:function`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from irtools.data.base import Dataset
from irtools.errors import DataError, UsageError
from irtools.words import counted

__all__ = ["import_function", "read_function"]


def read_function(spec: str) -> Dataset:
    """Call `module:function` and return its data.

    The function takes nothing and returns a `Dataset`, a mapping of input name to array, or an
    iterable of feeds (batches), each with an optional `labels`.

    Raises:
        UsageError: No such module or function.
        DataError: It returns something else.
    """
    made = import_function(spec)()
    if isinstance(made, Dataset):
        return made
    if isinstance(made, Mapping):
        return _from_batches(spec, [made])
    if isinstance(made, Iterable):
        return _from_batches(spec, made)
    raise DataError(
        f"{spec} returned {type(made).__name__}; expected a Dataset, a mapping of arrays, or an "
        "iterable of such mappings"
    )


def import_function(spec: str) -> Callable[..., Any]:
    """Return the function that `module:function` names.

    Raises:
        UsageError: No such module or function.
    """
    module, _, name = spec.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise UsageError(f"{spec}: no module named '{error.name}' on the import path") from error
    except AttributeError as error:
        raise UsageError(f"{spec}: module '{module}' has no '{name}'") from error
    if not callable(found):
        raise UsageError(f"{spec} is {type(found).__name__}, not a function")
    result: Callable[..., Any] = found
    return result


def _from_batches(spec: str, batches: Iterable[object]) -> Dataset:
    parts: dict[str, list[np.ndarray]] = {}
    count = 0
    for count, batch in enumerate(batches, 1):
        if not isinstance(batch, Mapping):
            raise DataError(f"{spec}: item {count - 1} is {type(batch).__name__}, not a mapping")
        for name, array in batch.items():
            parts.setdefault(str(name), []).append(np.asarray(array))
    if not count:
        raise DataError(f"{spec} gave no data")
    uneven = [name for name, arrays in parts.items() if len(arrays) != count]
    if uneven:
        raise DataError(
            f"{spec}: '{uneven[0]}' is missing from some of the {counted(count, 'item')}"
        )
    feeds = {name: _join(spec, name, arrays) for name, arrays in parts.items()}
    labels = feeds.pop("labels", None)
    return Dataset(feeds, labels, source=spec)


def _join(spec: str, name: str, arrays: list[np.ndarray]) -> np.ndarray:
    """Concatenate along axis 0; token arrays of different lengths are padded with zeros."""
    ranks = {array.ndim for array in arrays}
    if len(ranks) != 1 or 0 in ranks:
        raise DataError(f"{spec}: '{name}' needs samples along axis 0 and one rank throughout")
    if ranks == {2} and arrays[0].dtype.kind in "iu":
        longest = max(array.shape[1] for array in arrays)
        arrays = [np.pad(a, ((0, 0), (0, longest - a.shape[1]))) for a in arrays]
    try:
        return np.concatenate(arrays)
    except ValueError as error:
        raise DataError(
            f"{spec}: '{name}' has items of shapes that do not join: {error}"
        ) from error
