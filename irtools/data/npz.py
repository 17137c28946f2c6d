"""Arrays from an `.npz` file."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from irtools.data.base import Dataset
from irtools.errors import DataError, FileError
from irtools.words import one_line

__all__ = ["read_arrays", "read_npz"]

_NOT_ARRAYS = (
    *(ValueError, EOFError, AttributeError, TypeError),
    *(zipfile.BadZipFile, zlib.error),
    # An archive that is encrypted, or packed in a way that Python does not know.
    RuntimeError,
    # A header that promises more than there is memory.
    MemoryError,
)


def read_npz(path: Path, label_column: str = "labels") -> Dataset:
    """Read inputs by their names, and labels under `label_column`.

    Raises:
        DataError: Not an `.npz` file, or one that holds Python objects.
        FileError: The file cannot be read.
    """
    arrays = read_arrays(path)
    scalars = [name for name, array in arrays.items() if array.ndim == 0]
    if scalars:
        raise DataError(
            f"{path}: array '{scalars[0]}' is a single number; arrays hold samples along axis 0"
        )
    labels = arrays.pop(label_column, None)
    return Dataset(arrays, labels, source=path.name)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read arrays by their names, whatever their sizes.

    Raises:
        DataError: Not an `.npz` file, or one that holds Python objects.
        FileError: The file cannot be read.
    """
    try:
        # Opened here, because numpy leaves the file open when it is not an archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except _NOT_ARRAYS as error:
        raise DataError(
            f"{path} is not an .npz file of plain arrays ({one_line(error)}); "
            "write one with numpy.savez(path, input_ids=..., labels=...)"
        ) from error
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from error
