"""Locks between processes: the system drops them with the process, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["folder_locked", "locked"]


@contextmanager
def locked(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lock file, which is there only as long as a process holds it or waits for it.

    Args:
        path: The file; its folder is made.
        on_wait: Called once where another process has the lock.

    Raises:
        OSError: The file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _acquired(path, on_wait)
    try:
        yield
    finally:
        # Removed while it is held: a process that waits for it sees that it has no name any more.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


@contextmanager
def folder_locked(folder: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lock on an existing folder, which leaves nothing in it.

    Raises:
        OSError: There is no such folder.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _wait(descriptor, on_wait)
        yield
    finally:
        os.close(descriptor)


def _acquired(path: Path, on_wait: Callable[[], None] | None) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _wait(descriptor, on_wait)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)


def _wait(descriptor: int, on_wait: Callable[[], None] | None) -> None:
    # Some network file systems have no locks: there, two processes may do the same work twice.
    with contextlib.suppress(OSError):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is not None:
                on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
