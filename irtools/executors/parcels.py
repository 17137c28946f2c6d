"""Files that travel to workers on machines that do not see them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irtools.errors import FileError, ModelError
from irtools.files import files_below
from irtools.model import weight_files
from irtools.sources import companions_in

__all__ = ["Parcel", "model_files", "packed", "unpacked"]


@dataclass(frozen=True)
class Parcel:
    """A file, with those that belong to it, or a folder.

    Attributes:
        name: Of the file or folder.
        files: Bytes by path below the folder that the parcel is unpacked into.
    """

    name: str
    files: Mapping[str, bytes]


def packed(value: Any, *, shares_files: bool) -> Any:
    """Return what a worker is sent in the place of a source or of data.

    A path becomes a `Parcel` where workers do not see it: a folder with all below it, an ONNX file
    with its weights and the small files next to it. Other values travel as they are.

    Raises:
        FileError: A file cannot be read.
    """
    if shares_files or not isinstance(value, str | os.PathLike):
        return value
    path = Path(value)
    if not path.exists():
        return value  # `module:function`, which is imported there.
    try:
        names = _names(path)
        return Parcel(path.name, {f"{name}": (path.parent / name).read_bytes() for name in names})
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from error


def unpacked(value: Any, folder: Path) -> Any:
    """Return what `packed` was given; the files of a parcel are put into a folder."""
    if not isinstance(value, Parcel):
        return value
    for name, content in value.files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return str(folder / value.name)


def _names(path: Path) -> list[str]:
    """Return the files of a parcel, relative to the folder that `path` is in."""
    if path.is_dir():
        return [f"{path.name}/{name}" for name in files_below(path)]
    if path.suffix != ".onnx":
        return [path.name]
    names = [os.path.relpath(one, path.parent) for one in model_files(path)]
    return [*names, *(one.name for one in companions_in(path.parent))]


def model_files(path: Path) -> tuple[Path, ...]:
    """Return a file and, of an ONNX file, those with its weights."""
    if path.suffix != ".onnx":
        return (path,)
    try:
        return (path, *weight_files(path))
    except ModelError:  # Reading it as a model says what is wrong with it.
        return (path,)
