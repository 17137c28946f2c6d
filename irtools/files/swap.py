"""Replacing a folder by another one at one moment."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from pathlib import Path

from irtools.errors import FileError

__all__ = ["replace_folder", "restore_folder"]

_AT_FDCWD = -100
_EXCHANGE = 2
_KEPT = ".irtools-old-"


def replace_folder(new: Path, place: Path) -> None:
    """Put a folder in the place of another one, which gets the name of the new one.

    A reader finds the old folder or the new one, at any moment. Where the file system cannot
    exchange two names there is a moment with neither, and a process that dies in it leaves what
    `restore_folder` puts back.

    Args:
        new: The folder, on the same file system.
        place: Where to; may be missing.

    Raises:
        FileError: It cannot be moved.
    """
    try:
        if not place.exists():
            new.rename(place)
        elif not _exchange(new, place):
            kept = _kept(place)
            place.rename(kept)
            new.rename(place)
            kept.rename(new)
    except OSError as error:
        raise FileError(f"cannot replace folder {place}: {error.strerror}") from error


def restore_folder(place: Path) -> None:
    """Put back the folder that an interrupted `replace_folder` has moved away, if there is one."""
    kept = _kept(place)
    if kept.is_dir() and not place.exists():
        kept.rename(place)


def _kept(place: Path) -> Path:
    return place.with_name(f"{_KEPT}{place.name}")


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names; False where this system or file system cannot."""
    call = _renameat2()
    if call is None:
        return False
    names = (os.fsencode(one), os.fsencode(other))
    return call(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE) == 0


@functools.cache
def _renameat2() -> Callable[..., int] | None:
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return call
