"""Checks that data fits a model, made before any run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from irtools.data.base import Dataset
from irtools.data.cache import with_empty_cache
from irtools.data.padding import columns_are_fixed
from irtools.data.signature import InputSpec, fixed_batch, required_inputs
from irtools.data.tables import indexed_rows
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
    empty one unless they bring their own.

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
    feeds = {spec.name: _fit(dataset, spec, notes) for spec in specs}
    _check_dynamic_sizes(dataset.source, specs, feeds)
    _check_ids(dataset.source, model, feeds)
    return replace(
        dataset,
        feeds=feeds,
        notes=tuple(dict.fromkeys(notes)),
        fixed_batch=fixed_batch(specs),
        fixed_length=columns_are_fixed(feeds, {spec.name: spec.shape for spec in specs}),
        scalars=frozenset(spec.name for spec in specs if spec.shape == ()),
    )


def check_calibration(dataset: Dataset) -> None:
    """Refuse data from which no range can be learnt.

    Raises:
        DataError: Samples that are all the same, or a float input, no mask, that is constant.
    """
    for name, array in dataset.feeds.items():
        if "mask" in name or array.dtype.kind != "f" or array.size < 2:
            continue
        if np.ptp(array) == 0:
            raise DataError(
                f"{dataset.source}: input '{name}' is {float(array.flat[0]):g} everywhere; "
                "calibration needs data as the model will see it"
            )
    if len(dataset) > 1 and all(_is_repeated(array) for array in dataset.feeds.values()):
        raise DataError(
            f"{dataset.source}: all {len(dataset)} samples are the same in "
            f"{', '.join(map(repr, dataset.feeds))}; calibration needs samples that differ"
        )


def _check_names(dataset: Dataset, specs: Sequence[InputSpec]) -> None:
    missing = [str(spec) for spec in specs if spec.name not in dataset.feeds]
    if missing:
        raise DataError(
            f"{dataset.source} has no array for input {'; '.join(missing)}; "
            f"it holds {', '.join(sorted(dataset.feeds)) or 'nothing'}"
        )


def _fit(dataset: Dataset, spec: InputSpec, notes: list[str]) -> np.ndarray:
    array = dataset.feeds[spec.name]
    _check_shape(dataset.source, spec, array)
    array = _cast(dataset.source, spec, array, notes)
    if array.dtype.kind == "f":
        _check_finite(dataset.source, spec.name, array)
    return array


def _check_shape(source: str, spec: InputSpec, array: np.ndarray) -> None:
    if spec.shape is None or (spec.shape == () and array.ndim == 1):
        return
    fits = array.ndim == len(spec.shape) and all(
        not isinstance(wanted, int) or size == wanted
        for size, wanted in zip(array.shape[1:], spec.shape[1:], strict=True)
    )
    batch = spec.shape[0] if spec.shape else None
    if not spec.shape or not fits:
        raise DataError(
            f"{source}: input '{spec.name}' has shape {list(array.shape)}, "
            f"the model takes {spec} "
            f"({'samples along axis 0' if spec.shape else 'one number per sample: shape [N]'})"
        )
    if isinstance(batch, int) and len(array) % batch:
        raise DataError(
            f"{source}: input '{spec.name}' holds {counted(len(array), 'sample')}, and the model "
            f"takes exactly {batch} at a time: give a multiple of {batch}"
        )


def _cast(source: str, spec: InputSpec, array: np.ndarray, notes: list[str]) -> np.ndarray:
    if array.dtype == spec.dtype:
        return array
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
    source: str, specs: Sequence[InputSpec], feeds: dict[str, np.ndarray]
) -> None:
    seen: dict[str, tuple[str, int]] = {}
    for spec in specs:
        for axis, size in enumerate(spec.shape or ()):
            if not isinstance(size, str) or axis == 0:
                continue
            found = feeds[spec.name].shape[axis]
            other, expected = seen.setdefault(size, (spec.name, found))
            if expected != found:
                raise DataError(
                    f"{source}: '{size}' is {expected} in input '{other}' but {found} in "
                    f"'{spec.name}'; the model wants them equal"
                )


def _check_ids(source: str, model: Model | ir.Model, feeds: dict[str, np.ndarray]) -> None:
    graph = (model.ir if isinstance(model, Model) else model).graph
    for value in graph.inputs:
        array = feeds.get(value.name or "")
        if array is None or array.dtype.kind not in "iu" or array.size == 0:
            continue
        rows = indexed_rows(value)
        low, high = int(array.min()), int(array.max())
        if rows is not None and not -rows <= low <= high < rows:
            sample = int(np.argwhere((array < -rows) | (array >= rows))[0][0])
            raise DataError(
                f"{source}: input '{value.name}' holds ids from {low} to {high}, but the table it "
                f"indexes has {counted(rows, 'row')} (first in sample {sample}); was the data "
                "made with another tokenizer?"
            )


def _is_repeated(array: np.ndarray) -> bool:
    return bool((array == array[:1]).all())
