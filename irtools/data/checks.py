"""Checks that data fits a model, made before any run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from irtools.analysis.tables import indexed_rows
from irtools.data.arrange import Arranged, arrange, is_constant, parts_of
from irtools.data.base import Dataset, is_ragged, objects
from irtools.data.cache import with_empty_cache
from irtools.data.layout import find_layout
from irtools.data.padding import columns_are_fixed, find_columns
from irtools.data.signature import InputSpec, required_inputs
from irtools.errors import DataError
from irtools.model import Model
from irtools.words import counted

__all__ = ["check_calibration", "fit_dataset"]

_SAFE_CASTS = {
    ("int32", "int64"),
    ("int64", "int32"),
    ("float64", "float32"),
    ("float16", "float32"),
    ("float32", "float16"),
    ("bool", "int64"),
    ("int64", "bool"),
    ("uint8", "int64"),
}


def fit_dataset(dataset: Dataset, model: Model | ir.Model) -> Dataset:
    """Return the data with exactly the model's inputs, in their element types.

    Casts that keep the values (int32 and int64, float64 to float32) are made and noted; arrays
    that belong to no input are dropped and noted. Samples of a decoder with a cache start with an
    empty one unless they have their own.

    Raises:
        DataError: A missing input, a type or shape that does not fit, no samples, NaN, or ids
            outside the table that they index. Names the input, what it holds and what was
            expected.
    """
    specs = required_inputs(model)
    dataset = with_empty_cache(dataset, model.ir if isinstance(model, Model) else model)
    _check_names(dataset, specs)
    if len(dataset) == 0:
        wanted = ", ".join(map(str, specs))
        raise DataError(f"{dataset.source} holds no samples; the model takes {wanted}")
    notes = list(dataset.notes)
    unused = sorted(set(dataset.feeds) - {spec.name for spec in specs})
    if unused:
        notes.append(f"{dataset.source}: not inputs of this model, left out: {', '.join(unused)}")
    found = arrange(dataset.source, dataset.feeds, specs, find_layout(model))
    feeds = {spec.name: _fit(dataset.source, spec, found.feeds[spec.name], notes) for spec in specs}
    _check_dynamic_sizes(dataset.source, specs, feeds, found)
    _check_ids(dataset.source, model, feeds)
    shapes = {spec.name: spec.shape for spec in specs}
    batched = {name: array for name, array in feeds.items() if name not in found.whole}
    return replace(
        dataset,
        feeds=feeds,
        notes=tuple(dict.fromkeys(notes)),
        fixed_batch=dataset.fixed_batch if dataset.synthetic else found.fixed,
        fixed_length=columns_are_fixed(batched, shapes),
        columns=find_columns(batched, shapes),
        whole=found.whole,
        inner=found.inner,
    )


def check_calibration(dataset: Dataset) -> None:
    """Refuse data from which no range can be learnt.

    One input may be constant for a good reason (`scale_factor` where all images have the size of
    the model); data teaches nothing where that is so of every input that is not a mask.

    Raises:
        DataError: Samples that are all the same, or inputs that are all constant.
    """
    numbers = [(name, array) for name, array in dataset.feeds.items() if "mask" not in name]
    known = [(name, array) for name, array in numbers if sum(a.size for a in parts_of(array)) > 1]
    if known and len(known) == len(numbers) and all(_is_one_number(array) for _, array in known):
        floats = [(name, a) for name, a in known if parts_of(a)[0].dtype.kind == "f"]
        if floats:
            name, array = floats[0]
            raise DataError(
                f"{dataset.source}: input '{name}' is {float(parts_of(array)[0].flat[0]):g} "
                "everywhere, and no other input varies; calibration needs data as the model will "
                "see it"
            )
    if len(dataset) > 1 and all(is_constant(array) for array in dataset.feeds.values()):
        raise DataError(
            f"{dataset.source}: all {len(dataset)} samples are the same in "
            f"{', '.join(map(repr, dataset.feeds))}; calibration needs samples that differ"
        )


def _is_one_number(array: np.ndarray) -> bool:
    """Whether an array holds the same value everywhere."""
    first = parts_of(array)[0].reshape(-1)[:1]
    return all(bool((part == first).all()) for part in parts_of(array))


def _check_names(dataset: Dataset, specs: Sequence[InputSpec]) -> None:
    missing = [str(spec) for spec in specs if spec.name not in dataset.feeds]
    if missing:
        raise DataError(
            f"{dataset.source} has no array for input {'; '.join(missing)}; "
            f"it holds {', '.join(sorted(dataset.feeds)) or 'nothing'}"
        )


def _fit(source: str, spec: InputSpec, array: np.ndarray, notes: list[str]) -> np.ndarray:
    if is_ragged(array):
        parts = [_fit(source, spec, part, notes) for part in array]
        return objects(parts)
    array = _cast(source, spec, array, notes)
    if array.dtype.kind == "f":
        _check_finite(source, spec.name, array)
    return array


def _cast(source: str, spec: InputSpec, array: np.ndarray, notes: list[str]) -> np.ndarray:
    if array.dtype == spec.dtype:
        return array
    if spec.dtype.kind == "O" and array.dtype.kind in "US":
        return array.astype(object)
    if (array.dtype.name, spec.dtype.name) not in _SAFE_CASTS:
        raise DataError(
            f"{source}: input '{spec.name}' is {array.dtype}, the model takes {spec.dtype}"
        )
    cast = array.astype(spec.dtype)
    if array.dtype.kind in "iub" and not np.array_equal(cast, array):
        raise DataError(
            f"{source}: input '{spec.name}' holds values that {spec.dtype} cannot hold "
            f"({array.min()} to {array.max()})"
        )
    notes.append(f"{source}: '{spec.name}' cast from {array.dtype} to {spec.dtype}")
    return cast


def _check_finite(source: str, name: str, array: np.ndarray) -> None:
    bad = int(array.size - np.count_nonzero(np.isfinite(array)))
    if bad:
        where = np.argwhere(~np.isfinite(array))[0]
        raise DataError(
            f"{source}: input '{name}' holds {counted(bad, 'NaN or infinite value')}, the "
            f"first in sample {where[0]}"
        )


def _check_dynamic_sizes(
    source: str, specs: Sequence[InputSpec], feeds: dict[str, np.ndarray], found: Arranged
) -> None:
    """Check axes of one name, where every sample has the same sizes."""
    seen: dict[str, tuple[str, int]] = {}
    for spec in specs:
        array = feeds[spec.name]
        if is_ragged(array):
            continue
        extra = int(spec.name in found.whole or spec.name in found.inner)
        batch = None if spec.name in found.whole else found.inner.get(spec.name, 0)
        for axis, size in enumerate(spec.shape or ()):
            if not isinstance(size, str) or axis == batch:
                continue
            here = array.shape[axis + extra]
            other, expected = seen.setdefault(size, (spec.name, here))
            if expected != here:
                raise DataError(
                    f"{source}: '{size}' is {expected} in input '{other}' but {here} in "
                    f"'{spec.name}'; the model needs them equal"
                )
    _check_sums(source, seen)


def _check_sums(source: str, seen: Mapping[str, tuple[str, int]]) -> None:
    """Check sizes that are sums of others, as of a mask over the cache and the new tokens.

    Args:
        seen: By size, the first input that has it, and how large it is there.
    """
    for size, (name, here) in seen.items():
        terms = [term.strip() for term in size.split("+")]
        known = [seen[term] for term in terms if term in seen]
        if len(terms) < 2 or len(known) < len(terms):
            continue
        total = sum(length for _, length in known)
        if total != here:
            parts = " and ".join(
                f"{length} ('{term}' in '{other}')"
                for term, (other, length) in zip(terms, known, strict=True)
            )
            raise DataError(
                f"{source}: '{size}' is {here} in input '{name}', and {parts} make {total}; the "
                "model needs them equal"
            )


def _check_ids(source: str, model: Model | ir.Model, feeds: dict[str, np.ndarray]) -> None:
    graph = (model.ir if isinstance(model, Model) else model).graph
    for value in graph.inputs:
        given = feeds.get(value.name or "")
        if given is None:
            continue
        parts = [part for part in parts_of(given) if part.size]
        rows = indexed_rows(value)
        if rows is None or not parts or parts[0].dtype.kind not in "iu":
            continue
        low, high = min(int(p.min()) for p in parts), max(int(p.max()) for p in parts)
        if not -rows <= low <= high < rows:
            bad = ((np.asarray(one) < -rows) | (np.asarray(one) >= rows) for one in given)
            sample = next(number for number, found in enumerate(bad) if found.any())
            raise DataError(
                f"{source}: input '{value.name}' holds ids from {low} to {high}, but the table it "
                f"indexes has {counted(rows, 'row')} (first in sample {sample}); was the data "
                "made with another tokenizer?"
            )
