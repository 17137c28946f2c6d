"""Files that travel to workers on machines that do not see them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irtools.errors import FileError
from irtools.files import files_below
from irtools.model import weight_files

__all__ = ["Parcel", "packed", "unpacked"]


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
    weights = [os.path.relpath(one, path.parent) for one in weight_files(path)]
    return [path.name, *weights, *_companions(path)]


def _companions(path: Path) -> list[str]:
    from irtools.sources import companions_in

    return [one.name for one in companions_in(path.parent)]
