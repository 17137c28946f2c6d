"""Adapter files of ONNX Runtime (`.onnx_adapter`): arrays for inputs that have a default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from irtools.backends.onnxruntime.session import RUNTIME_ERRORS, clean_message, ort
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
        raise FileError(f"{path} is not an adapter: {clean_message(error)}") from error
    known = {slot.name: slot for slot in slots if not slot.required}
    strange = [name for name in found if name not in known]
    if strange:
        raise ModelError(
            f"adapter {path} was made for another model: {counted(len(strange), 'array')} of "
            f"{len(found)} have no input here, {strange[0]!r} first"
        )
    for name, value in found.items():
        _check(path, name, value, known[name])
    return dict(found)


def _check(path: Path, name: str, value: Any, slot: InputSlot) -> None:
    shape, wanted = tuple(value.shape()), slot.shape or ()
    fits = len(shape) == len(wanted) and all(
        size in (None, own) for size, own in zip(wanted, shape, strict=True)
    )
    if not fits:
        raise ModelError(
            f"adapter {path} was made for another model: {name!r} is {list(shape)}, and the model "
            f"takes [{', '.join('rank' if size is None else str(size) for size in wanted)}]"
        )
