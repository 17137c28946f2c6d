"""Writing a file so that its name holds the old content or the whole new one, never a part."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import stat
from pathlib import Path

from irtools.errors import FileError
from irtools.model.files import reason
from irtools.model.same import same_bytes
from irtools.model.scopes import shown

__all__ = ["NewFile", "OutputFolder"]

_MARK = ".irtools-"
_CHUNK = 2**24


class OutputFolder:
    """A folder, held open, in which files are made under temporary names and then renamed.

    A context manager; one process at a time is inside. On leaving, temporary files that were not
    renamed are removed, whatever went wrong.

    Args:
        path: The folder.
        scratch: It goes with this process: nothing is flushed to the disk or read back.

    Raises:
        FileError: The folder is missing or cannot be written.
    """

    def __init__(self, path: Path, *, scratch: bool = False) -> None:
        self.path = path
        self.scratch = scratch
        self._files: list[NewFile] = []
        try:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            raise FileError(f"cannot write into {shown(path)}: {reason(error)}") from error

    def __enter__(self) -> OutputFolder:
        # Two writers must not choose one free name for their weights. The lock ends with the
        # descriptor, or with the process; some network file systems have none.
        with contextlib.suppress(OSError):
            fcntl.flock(self.descriptor, fcntl.LOCK_EX)
        return self

    def __exit__(self, *details: object) -> None:
        try:
            for file in self._files:
                file.discard()
        finally:
            os.close(self.descriptor)

    def create(self, name: str) -> NewFile:
        """Start a file that will get the given name."""
        file = NewFile(self, name)
        self._files.append(file)
        return file

    def exists(self, name: str) -> bool:
        """Whether there is anything under a name, a dangling link included."""
        try:
            os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def remove(self, name: str) -> None:
        """Remove a file of the folder."""
        os.unlink(name, dir_fd=self.descriptor)

    def sync(self) -> None:
        """Flush renames to the disk."""
        if self.scratch:
            return
        os.fsync(self.descriptor)

    def remove_abandoned(self, name: str) -> None:
        """Remove temporary files of `name` whose writer was killed.

        A living writer holds a lock on its file.
        """
        with os.scandir(self.descriptor) as entries:
            found = [e.name for e in entries if e.name.startswith(_temporary_stem(name))]
        for entry in found:
            with contextlib.suppress(OSError):
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                descriptor = os.open(entry, flags, dir_fd=self.descriptor)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(entry, dir_fd=self.descriptor)
                finally:
                    os.close(descriptor)


class NewFile:
    """A file that is being written under a temporary name that cannot be guessed."""

    def __init__(self, folder: OutputFolder, name: str) -> None:
        self._folder = folder
        self.name = name
        self.temporary: str | None = _temporary_stem(name) + secrets.token_hex(8)
        self._written: list[tuple[int, memoryview | bytes]] = []
        self.size = 0
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        # 0o666 under the umask is what a plain write gives.
        self.descriptor = os.open(self.temporary, flags, 0o666, dir_fd=folder.descriptor)
        # Some network file systems have no locks; there no process can take the file for abandoned.
        with contextlib.suppress(OSError):
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes. A view must stay as it is until `finish`, which compares with it."""
        view = memoryview(data).cast("B")
        if not self._folder.scratch:
            # What no one else holds is not kept in memory for that.
            kept = view if isinstance(data, memoryview) else hashlib.sha256(data).digest()
            self._written.append((len(view), kept))
        while len(view):
            written = os.write(self.descriptor, view[:_CHUNK])
            self.size += written
            view = view[written:]

    def finish(self) -> None:
        """Flush the file to the disk, read it back and compare.

        Raises:
            FileError: What was read is not what was written.
        """
        if self._folder.scratch:
            return
        os.fsync(self.descriptor)
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        if not all(self._reads_back(*part) for part in self._written):
            raise FileError(f"{shown(self.name)} does not read back as it was written; disk fault?")
        self._written.clear()

    def _reads_back(self, length: int, expected: memoryview | bytes) -> bool:
        """Read the next part; whether it is a view, or has a digest, that is expected."""
        digest = hashlib.sha256()
        for start in range(0, length, _CHUNK):
            chunk = os.read(self.descriptor, min(_CHUNK, length - start))
            if isinstance(expected, bytes):
                digest.update(chunk)
            elif not same_bytes(chunk, expected[start : start + _CHUNK]):
                return False
        return not isinstance(expected, bytes) or digest.digest() == expected

    def publish(self) -> None:
        """Give the file its name, replacing what had it before. Links are replaced, not followed.

        Raises:
            FileError: The name belongs to a folder, pipe or device.
        """
        assert self.temporary is not None
        _check_replaceable(self._folder, self.name)
        here = self._folder.descriptor
        os.rename(self.temporary, self.name, src_dir_fd=here, dst_dir_fd=here)
        self.temporary = None

    def retract(self) -> None:
        """Remove the file although it was published."""
        if self.temporary is None:
            self._folder.remove(self.name)

    def discard(self) -> None:
        """Remove the file if it was not published, and release it."""
        temporary, self.temporary = self.temporary, None
        try:
            if temporary is not None:
                with contextlib.suppress(FileNotFoundError):
                    self._folder.remove(temporary)
        finally:
            os.close(self.descriptor)


def _temporary_stem(name: str) -> str:
    # Cut, for a name may already be as long as the system allows.
    return f".{name[:40]}{_MARK}"


def _check_replaceable(folder: OutputFolder, name: str) -> None:
    try:
        mode = os.stat(name, dir_fd=folder.descriptor, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise FileError(f"{shown(folder.path / name)} is not a regular file and is not replaced")
