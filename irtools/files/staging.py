"""Writing files so that their place holds the old ones or the whole new ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from irtools.errors import FileError
from irtools.files.scratch import remove_abandoned, scratch_folder

__all__ = ["publish", "publish_folder", "remove_staging", "staging_folder"]
_PREFIX = ".irtools-"


@contextmanager
def staging_folder(directory: Path) -> Iterator[Path]:
    """Make a private folder inside `directory`, and remove it with what is left in it.

    It is on the same file system, so that moving files out of it is atomic.

    Raises:
        FileError: The folder cannot be made, or writing into it failed.
    """
    with ExitStack() as stack:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            made = scratch_folder("staging", directory, prefix=_PREFIX)
            folder = stack.enter_context(made)
        except OSError as error:
            raise FileError(f"cannot write to folder {directory}: {error.strerror}") from error
        yield folder


def remove_staging(directory: Path) -> None:
    """Remove the staging folders of dead processes inside `directory`."""
    remove_abandoned(directory, _PREFIX)


def publish_folder(folder: Path, place: Path, last: str | None = None) -> None:
    """Move what a staging folder holds to `place`: a new folder, or file by file into one.

    Args:
        folder: A folder inside a staging folder that lies in or next to `place`.
        place: Where to; appears whole where it is new.
        last: As `publish` takes it.

    Raises:
        FileError: The folder cannot be made, or a file cannot be moved.
    """
    if place.is_dir():
        publish(folder, place, last)
        return
    try:
        folder.rename(place)
    except OSError as error:
        raise FileError(f"cannot make folder {place}: {error.strerror}") from error


def publish(folder: Path, directory: Path, last: str | None = None) -> tuple[Path, ...]:
    """Move every file of a staging folder to `directory`.

    Args:
        folder: The staging folder.
        directory: Where to.
        last: Name of the file that refers to the others. It is moved last, so that a reader
            never meets it without them. None: no file does.

    Returns:
        The new paths, `last` first.

    Raises:
        FileError: A file cannot be moved.
    """
    names = sorted(path.name for path in folder.iterdir())
    order = names if last is None else [*(name for name in names if name != last), last]
    try:
        for name in order:
            _flush(folder / name)
            (folder / name).replace(directory / name)
    except OSError as error:
        raise FileError(f"cannot write {directory / name}: {error.strerror}") from error
    return tuple(directory / name for name in (*order[-1:], *order[:-1]))


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
