"""Puts given arrays into the form in which a dataset holds them, by the model's layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from irtools.data.base import is_ragged
from irtools.data.layout import Layout
from irtools.data.signature import InputSpec, Shape
from irtools.errors import DataError
from irtools.words import counted

__all__ = ["Arranged", "arrange", "is_constant", "parts_of"]


@dataclass(frozen=True)
class Arranged:
    """Feeds of a dataset, and which of them are not simply samples along axis 0."""

    feeds: dict[str, np.ndarray]
    whole: frozenset[str]
    inner: Mapping[str, int]
    fixed: int | None


def arrange(
    source: str, feeds: Mapping[str, np.ndarray], specs: Sequence[InputSpec], layout: Layout
) -> Arranged:
    """Check shapes and find out which inputs are fed whole.

    An input is given as [N, *rest] where the model takes [batch, *rest], as [N, *shape] where it
    has no batch axis, and as [N, layers, 1, width] or [N, layers, width] where its samples lie
    along another axis ([layers, batch, width]). Whole calls [N, *shape] of every input are taken
    as well: each is then one sample.

    Raises:
        DataError: A shape that does not fit; names the input, what it is and what was expected.
    """
    calls = any(is_ragged(feeds[spec.name]) for spec in specs) or _are_calls(feeds, specs, layout)
    found: dict[str, np.ndarray] = {}
    whole: set[str] = set()
    for spec in specs:
        array = feeds[spec.name]
        if calls or (layout.is_whole(spec.name) and not _is_batch_of(spec, array, layout)):
            found[spec.name] = _whole(source, spec, array)
            whole.add(spec.name)
        elif layout.axes.get(spec.name):
            found[spec.name] = _inner(source, spec, array, layout.axes[spec.name])
        else:
            found[spec.name] = _first(source, spec, array)
    if len(whole) == len(specs):
        return Arranged(found, frozenset(whole), {}, 1)
    fixed = layout.fixed if layout.axes else _common_batch(specs, whole)
    _check_multiple(source, found, 1 if fixed is None else fixed)
    fixed = _with_whole(source, found, whole, fixed)
    return Arranged(found, frozenset(whole), layout.inner(), fixed)


def parts_of(array: np.ndarray) -> Sequence[np.ndarray]:
    """Return the arrays that an array holds: itself, or one per sample."""
    return list(array) if is_ragged(array) else [array]


def is_constant(array: np.ndarray) -> bool:
    """Whether all samples are the same."""
    if is_ragged(array):
        return all(np.array_equal(array[0], other) for other in array[1:])
    return bool((array == array[:1]).all())


def _are_calls(feeds: Mapping[str, np.ndarray], specs: Sequence[InputSpec], layout: Layout) -> bool:
    """Whether every input has one axis more than the model states."""
    return all(
        spec.shape is not None and feeds[spec.name].ndim == len(spec.shape) + 1 for spec in specs
    ) and any(layout.axes.get(spec.name) == 0 for spec in specs)


def _is_batch_of(spec: InputSpec, array: np.ndarray, layout: Layout) -> bool:
    """Whether an input that could be whole is given as batches of its static first axis."""
    size = spec.shape[0] if spec.shape else None
    return (
        not layout.axes
        and isinstance(size, int)
        and array.ndim == len(spec.shape or ())
        and (array.ndim > 1 or size == 1)
        and len(array) % size == 0
        and _fits(array.shape[1:], (spec.shape or ())[1:])
    )


def _common_batch(specs: Sequence[InputSpec], whole: set[str]) -> int | None:
    """Return the static first axis of the inputs that are given as batches."""
    sizes = [spec.shape[0] for spec in specs if spec.shape and spec.name not in whole]
    return next((size for size in sizes if isinstance(size, int)), None)


def _first(source: str, spec: InputSpec, array: np.ndarray) -> np.ndarray:
    if spec.shape is None:
        return array
    if array.ndim == len(spec.shape) + 1 and array.shape[1] == 1:
        array = array[:, 0]  # One sample per call, given as the model takes it.
    if array.ndim != len(spec.shape) or not _fits(array.shape[1:], spec.shape[1:]):
        raise _wrong(source, spec, array, "samples along axis 0")
    return array


def _whole(source: str, spec: InputSpec, array: np.ndarray) -> np.ndarray:
    if is_ragged(array):
        if any(spec.shape is not None and not _fits(a.shape, spec.shape) for a in array):
            raise _wrong(source, spec, array[0], "batches as the model takes them")
        return array
    if spec.shape is None or _fits(array.shape[1:], spec.shape):
        return array
    if spec.shape and spec.shape[0] == 1 and _fits(array.shape[1:], spec.shape[1:]):
        return array[:, None]
    sizes = ",".join(["N", *(str(size or "?") for size in spec.shape)])
    what = "one number" if not spec.shape else "one array"
    raise _wrong(source, spec, array, f"{what} per sample: shape [{sizes}]")


def _inner(source: str, spec: InputSpec, array: np.ndarray, axis: int) -> np.ndarray:
    assert spec.shape is not None
    rest = spec.shape[:axis] + spec.shape[axis + 1 :]
    if array.ndim == len(spec.shape) and _fits(array.shape[1:], rest):
        return np.expand_dims(array, axis + 1)
    if (
        array.ndim == len(spec.shape) + 1
        and array.shape[axis + 1] == 1
        and _fits(array.shape[1:], spec.shape)
    ):
        return array
    one = [1 if a == axis else size for a, size in enumerate(spec.shape)]
    sizes = ",".join(["N", *(str(size or "?") for size in one)])
    raise _wrong(
        source,
        spec,
        array,
        f"its samples lie along axis {axis}: give them along axis 0, shape [{sizes}]",
    )


def _fits(sizes: Sequence[int], wanted: Shape) -> bool:
    return len(sizes) == len(wanted) and all(
        not isinstance(expected, int) or size == expected
        for size, expected in zip(sizes, wanted, strict=True)
    )


def _wrong(source: str, spec: InputSpec, array: np.ndarray, how: str) -> DataError:
    return DataError(
        f"{source}: input '{spec.name}' has shape {list(array.shape)}, the model takes {spec} "
        f"({how})"
    )


def _check_multiple(source: str, feeds: Mapping[str, np.ndarray], fixed: int) -> None:
    name, array = next(iter(feeds.items()))
    if len(array) % fixed:
        raise DataError(
            f"{source}: input '{name}' holds {counted(len(array), 'sample')}, and the model "
            f"takes exactly {fixed} at a time: give a multiple of {fixed}"
        )


def _with_whole(
    source: str, feeds: Mapping[str, np.ndarray], whole: set[str], fixed: int | None
) -> int | None:
    """Return the samples per call, 1 where an input that is fed whole differs between samples.

    Raises:
        DataError: It differs between samples that the model takes together.
    """
    if fixed is None:
        return None if all(is_constant(feeds[name]) for name in whole) else 1
    for name in whole:
        array = feeds[name]
        calls = (array[start : start + fixed] for start in range(0, len(array), fixed))
        if not all(is_constant(call) for call in calls):
            raise DataError(
                f"{source}: input '{name}' is fed whole and differs between samples that the "
                f"model takes together ({fixed} at a time): repeat it {fixed} times"
            )
    return fixed
