"""Hashes of files and folders."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from irtools.errors import FileError

__all__ = ["file_hash", "file_hashes", "files_below"]


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal.

    Raises:
        FileError: It cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error


def file_hashes(paths: Iterable[Path]) -> dict[Path, str]:
    """Return the SHA-256 of several files, hashed side by side. Raises as `file_hash`."""
    files = list(paths)
    with ThreadPoolExecutor() as pool:
        return dict(zip(files, pool.map(file_hash, files), strict=True))


def files_below(folder: Path) -> tuple[str, ...]:
    """Return the files in a folder and its folders, as relative paths with `/`, sorted."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return tuple(sorted(path.relative_to(folder).as_posix() for path in found))
