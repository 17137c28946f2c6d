"""What crosses the border between a child process and its parent.

The parent pickles the job, because it trusts itself. The child has met an untrusted model, so
its answer is plain JSON and plain arrays: reading it runs no code.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from typing import Any

import numpy as np

__all__ = ["decode", "encode"]

_ARRAY = "\0array"
_FOREIGN = 2
"""What `dtype.isbuiltin` says of types that another package adds to numpy's: bfloat16."""


def encode(answer: object) -> bytes:
    """Write mappings, lists, strings, numbers and arrays as bytes.

    Raises:
        TypeError: Something else.
    """
    arrays: list[np.ndarray] = []
    text = json.dumps(_without_arrays(answer, arrays))
    stream = io.BytesIO()
    np.savez(stream, np.array(text), *arrays)
    return stream.getvalue()


def decode(content: bytes) -> Any:
    """Read what `encode` wrote.

    Raises:
        ValueError: Not such bytes.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return _with_arrays(json.loads(str(archive["arr_0"])), archive)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"no answer in {len(content)} bytes: {error}") from error


def _without_arrays(item: object, arrays: list[np.ndarray]) -> object:
    if isinstance(item, np.ndarray):
        arrays.append(_storable(item))
        return {_ARRAY: len(arrays)}
    if isinstance(item, dict):
        return {str(key): _without_arrays(value, arrays) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        return [_without_arrays(value, arrays) for value in item]
    return item


def _storable(array: np.ndarray) -> np.ndarray:
    """Types that numpy's own file format does not know travel in one that holds their values."""
    if array.dtype == object:
        return array.astype(str)
    return array.astype(np.float32) if array.dtype.isbuiltin == _FOREIGN else array


def _with_arrays(item: Any, archive: Any) -> Any:
    if isinstance(item, dict):
        if _ARRAY in item:
            return archive[f"arr_{item[_ARRAY]}"]
        return {key: _with_arrays(value, archive) for key, value in item.items()}
    return [_with_arrays(value, archive) for value in item] if isinstance(item, list) else item
