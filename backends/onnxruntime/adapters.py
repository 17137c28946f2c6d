"""Adapter files of ONNX Runtime (`.onnx_adapter`): arrays for inputs that have a default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from irtools.analysis.adapters import modules_of, up_name
from irtools.backends.onnxruntime.session import RUNTIME_ERRORS, ort
from irtools.errors import FileError, ModelError
from irtools.targets import Feeds, InputSlot
from irtools.words import counted

__all__ = ["read_adapter", "write_adapter"]

_FAILURES: tuple[type[Exception], ...] = (RuntimeError, *RUNTIME_ERRORS)


def write_adapter(path: Path, arrays: Feeds) -> None:
    """Write arrays by the names of the inputs that they are for."""
    made = ort.AdapterFormat()
    made.set_adapter_version(1)
    made.set_model_version(1)
    made.set_parameters(
        {
            name: ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
            for name, array in arrays.items()
        }
    )
    made.export_adapter(str(path))


def read_adapter(path: Path, slots: Sequence[InputSlot]) -> Mapping[str, Any]:
    """Return the values of an adapter by input, mapped from its file.

    Args:
        path: The file.
        slots: What the model takes.

    Raises:
        FileError: There is no such file, or it is not an adapter.
        ModelError: It was made for another model; names what differs.
    """
    if not path.is_file():
        raise FileError(f"there is no adapter file {path}")
    try:
        found = ort.AdapterFormat.read_adapter(str(path)).get_parameters()
    except _FAILURES as error:
        raise FileError(
            f"{path} is not an adapter of ONNX Runtime, or damaged: export it again with "
            "irc export --adapters-as inputs"
        ) from error
    known = {slot.name: slot for slot in slots if not slot.required}
    strange = [name for name in found if name not in known]
    if strange:
        raise ModelError(
            f"adapter {path} was made for another model: {counted(len(strange), 'array')} of "
            f"{len(found)} have no input here, {strange[0]!r} first"
        )
    if not found:
        raise ModelError(f"adapter {path} holds no array: expected factors by name of the layer")
    arrays = {name: value.numpy() for name, value in found.items()}
    for name, array in arrays.items():
        _check(path, array, known[name])
    _check_ranks(path, arrays, known)
    return dict(found)


def _check(path: Path, array: np.ndarray, slot: InputSlot) -> None:
    name, shape, wanted = slot.name, array.shape, slot.shape or ()
    if array.dtype != slot.dtype:
        raise ModelError(
            f"adapter {path} was made for another model: {name!r} is {array.dtype}, and the model "
            f"takes {slot.dtype}"
        )
    fits = len(shape) == len(wanted) and all(
        size in (None, own) for size, own in zip(wanted, shape, strict=True)
    )
    if not fits:
        raise ModelError(
            f"adapter {path} was made for another model: {name!r} is {list(shape)}, and the model "
            f"takes [{', '.join('rank' if size is None else str(size) for size in wanted)}]"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ModelError(f"adapter {path} is damaged: {name!r} has numbers that are not finite")


def _check_ranks(path: Path, arrays: Feeds, known: Mapping[str, InputSlot]) -> None:
    """Refuse factors of different ranks, of which the product does not exist."""
    for down in known:
        modules = modules_of(down, known)
        ups = [name for name in map(up_name, modules) if name in arrays]
        if not ups and down not in arrays:
            continue
        absent = [name for name in (down, *map(up_name, modules)) if name not in arrays]
        if modules and absent:
            raise ModelError(
                f"adapter {path} has {(ups or [down])[0]!r} without {absent[0]!r}: expected both "
                "factors of each layer"
            )
        for name in ups:
            rank, columns = arrays[name].shape[0], arrays[down].shape[1]
            if rank * len(modules) != columns:
                raise ModelError(
                    f"adapter {path}: {name!r} has rank {rank}, and {down!r} {columns} columns; "
                    f"expected {rank * len(modules)}, the rank for each of "
                    f"{counted(len(modules), 'layer')}"
                )
