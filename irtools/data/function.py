"""Data from a function of the user's, `module:function`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from irtools.data.base import Dataset, objects
from irtools.data.layout import Layout
from irtools.errors import DataError, UsageError
from irtools.plugins import import_named
from irtools.words import counted

__all__ = ["import_function", "read_function"]


def read_function(spec: str, layout: Layout | None = None) -> Dataset:
    """Call `module:function` and return its data.

    The function takes nothing and returns a `Dataset`, a mapping of input name to array, or an
    iterable of feeds (batches), each with an optional `labels`. Batches are joined where their
    samples lie along the first axis of every input and their shapes allow it; else each batch
    stays as it comes, and is run by itself.

    Args:
        layout: How the model's inputs are made of samples; None: all along axis 0.

    Raises:
        UsageError: No such module or function.
        DataError: It returns something else.
    """
    made = import_function(spec)()
    if isinstance(made, Dataset):
        return made
    if isinstance(made, Mapping):
        return _from_mapping(spec, made, layout)
    if isinstance(made, Iterable):
        return _from_batches(spec, made, layout)
    raise DataError(
        f"{spec} returned {type(made).__name__}; expected a Dataset, a mapping of arrays, or an "
        "iterable of such mappings"
    )


def _from_mapping(spec: str, made: Mapping[Any, Any], layout: Layout | None) -> Dataset:
    """Read arrays with samples along axis 0, or one batch as the model takes it."""
    arrays = {str(name): np.asarray(array) for name, array in made.items()}
    if len({len(array) if array.ndim else None for array in arrays.values()}) > 1:
        return _from_batches(spec, [made], layout)
    labels = arrays.pop("labels", None)
    return Dataset(arrays, labels, source=spec)


def import_function(spec: str) -> Callable[..., Any]:
    """Return the function that `module:function` names; modules of the current folder count.

    Raises:
        UsageError: No such module or function.
    """
    found = import_named(spec)
    if not callable(found):
        raise UsageError(f"{spec} is {type(found).__name__}, not a function")
    result: Callable[..., Any] = found
    return result


def _from_batches(spec: str, batches: Iterable[object], layout: Layout | None) -> Dataset:
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
    labels = parts.pop("labels", None)
    joined = {name: _join(arrays) for name, arrays in parts.items() if _is_batch(name, layout)}
    feeds = {name: array for name, array in joined.items() if array is not None}
    if len(feeds) < len(parts) or _lengths_differ(feeds, labels):
        return _as_calls(spec, parts, labels)
    return Dataset(feeds, None if labels is None else np.concatenate(labels), source=spec)


def _is_batch(name: str, layout: Layout | None) -> bool:
    """Whether samples lie along the first axis; what the model does not take may be anything."""
    return layout is None or name not in layout.named or layout.axes.get(name) == 0


def _lengths_differ(feeds: Mapping[str, np.ndarray], labels: list[np.ndarray] | None) -> bool:
    lengths = {len(array) for array in feeds.values()}
    if labels is not None and all(array.ndim for array in labels):
        lengths.add(sum(len(array) for array in labels))
    return len(lengths) > 1


def _join(arrays: list[np.ndarray]) -> np.ndarray | None:
    """Concatenate along axis 0; None where shapes do not join.

    Token arrays of different lengths are padded with zeros.
    """
    ranks = {array.ndim for array in arrays}
    if len(ranks) != 1 or 0 in ranks:
        return None
    if ranks == {2} and arrays[0].dtype.kind in "iu":
        longest = max(array.shape[1] for array in arrays)
        arrays = [np.pad(a, ((0, 0), (0, longest - a.shape[1]))) for a in arrays]
    if len({array.shape[1:] for array in arrays}) > 1:
        return None
    return np.concatenate(arrays)


def _as_calls(
    spec: str, parts: Mapping[str, list[np.ndarray]], labels: list[np.ndarray] | None
) -> Dataset:
    """Return each batch as one sample that is fed whole.

    Raises:
        DataError: Labels of several samples per batch, which then could not be told apart.
    """
    kept: np.ndarray | None = None
    if labels is not None:
        ones = [np.atleast_1d(array) for array in labels]
        if any(len(array) != 1 for array in ones):
            raise DataError(
                f"{spec}: its batches have different shapes, so each is run by itself, and their "
                "'labels' hold several samples each: give batches of one sample"
            )
        kept = np.concatenate(ones)
    return Dataset({name: _side_by_side(arrays) for name, arrays in parts.items()}, kept, spec)


def _side_by_side(arrays: list[np.ndarray]) -> np.ndarray:
    return np.stack(arrays) if len({a.shape for a in arrays}) == 1 else objects(arrays)
