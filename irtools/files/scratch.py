"""Temporary folders, none of which outlives its process for long.

A process that is killed removes nothing, and a folder of a large model takes gigabytes. So every
temporary folder holds a file that its process keeps locked: the system drops the lock with the
process, however that ends, and no reused process id can be mistaken for it. The process that makes
the next folder in the same place removes those whose lock is free.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["remove_abandoned", "scratch_folder", "scratch_place"]

_LOCK = ".irc-lock"
_INSIDE = "files"
_PREFIX = "irc-"


def scratch_place() -> Path:
    """Return the folder for temporary ones, which `TMPDIR` chooses."""
    return Path(tempfile.gettempdir())


@contextmanager
def scratch_folder(
    purpose: str = "work", place: Path | None = None, *, prefix: str = _PREFIX
) -> Iterator[Path]:
    """Make an empty folder that only this user can read, and remove it at the end.

    Folders of dead processes in the same place are removed first.

    Args:
        purpose: A word for its name.
        place: The folder to make it in; None: the system's, which `TMPDIR` chooses.
        prefix: Begins its name.

    Raises:
        OSError: It cannot be made.
    """
    where = scratch_place() if place is None else place
    _sweep_once(where.absolute(), prefix)
    root = Path(tempfile.mkdtemp(prefix=f"{prefix}{purpose}-", dir=where))
    lock = _locked(root)
    try:
        inside = root / _INSIDE
        inside.mkdir(mode=0o700)
        yield inside
    finally:
        try:
            _remove(root)
        finally:
            os.close(lock)


def remove_abandoned(place: Path, prefix: str = _PREFIX) -> tuple[Path, ...]:
    """Remove the temporary folders whose process is dead.

    Folders of other users, of living processes (in other containers too) and folders that
    `scratch_folder` did not make stay. Safe while others do the same.

    Returns:
        What was removed.
    """
    removed = []
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        found = [e.path for e in entries if e.name.startswith(prefix)]
        removed = [Path(path) for path in found if _remove_if_abandoned(Path(path))]
    return tuple(removed)


@functools.cache
def _sweep_once(place: Path, prefix: str) -> None:
    remove_abandoned(place, prefix)


def _locked(root: Path) -> int:
    """Make the lock file of a folder; under its name it is never seen unlocked."""
    new = root / f"{_LOCK}.new"
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    # Some network file systems have no locks. A folder without a lock file is left alone.
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        new.rename(root / _LOCK)
    return descriptor


def _remove_if_abandoned(root: Path) -> bool:
    try:
        status = root.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            return False
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        lock = os.open(root / _LOCK, flags)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another process may have removed the folder while this one waited its turn.
        if os.fstat(lock).st_nlink == 0:
            return False
        _remove(root)
    except OSError:
        return False
    finally:
        os.close(lock)
    return not root.exists()


def _remove(root: Path) -> None:
    """Remove a folder, its lock file last: what is interrupted here is found again."""
    shutil.rmtree(root / _INSIDE, ignore_errors=True)
    shutil.rmtree(root, ignore_errors=True)
