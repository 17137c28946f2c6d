"""A store of results by the hash of all that decides them: the cache of every part of irtools.

An entry is a folder of files with a list of their sizes and hashes. It is made elsewhere and
renamed into place, so that it is there whole or not at all, whatever becomes of the process. An
entry that is damaged counts as missing, and the least recently used ones go when the store grows
too large. Entries in use are locked, and stay.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from irtools.files.entry import LIST, VERSION, Entry, describe, inspected
from irtools.files.locks import locked
from irtools.files.scratch import scratch_folder

__all__ = ["STORE_LIMIT", "Store", "StoredSize"]

_LAYOUT = f"store-{VERSION}"
STORE_LIMIT = 10 << 30
"""Bytes that a store may take unless its user says otherwise."""
_LARGEST_SHARE = 4


@dataclass(frozen=True)
class StoredSize:
    """What there is of one kind."""

    kind: str
    entries: int
    bytes: int


class Store:
    """A folder of entries.

    Args:
        folder: Where; made when something is kept.
        limit: Most bytes of all entries together; one larger than a quarter of it is not kept.
        warn: Told what was damaged or could not be kept, in one line each.
    """

    def __init__(
        self,
        folder: Path,
        limit: int = STORE_LIMIT,
        warn: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.folder = folder
        self.limit = limit
        self._warn = warn

    @property
    def root(self) -> Path:
        """The folder of entries in this version's layout."""
        return self.folder / _LAYOUT

    @property
    def largest(self) -> int:
        """Most bytes of one entry: a larger one would drive out too many others."""
        return self.limit // _LARGEST_SHARE

    @staticmethod
    def key(**parts: object) -> str:
        """Return the name of what these parts decide."""
        text = "\n".join(f"{name}={parts[name]}" for name in sorted(parts))
        return hashlib.sha256(f"{VERSION}\n{text}".encode()).hexdigest()

    @contextmanager
    def open(self, kind: str, key: str) -> Iterator[Entry | None]:
        """Find an entry and keep it from being removed meanwhile.

        Every file is compared with its hash. A damaged entry is removed, and reported.

        Yields:
            The entry; None: there is none that is whole.
        """
        folder = self._folder(kind, key)
        try:
            descriptor = os.open(folder / LIST, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            yield None
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            fault, files = inspected(folder, key)
            if fault is None:
                with contextlib.suppress(OSError):
                    os.utime(folder / LIST)  # It was used now.
                yield Entry(folder, files)
        finally:
            os.close(descriptor)
        if fault is not None:
            self._warn(f"cache entry {kind} {key[:12]} is damaged ({fault}): it is made again")
            self._remove(folder)
            yield None

    def put(self, kind: str, key: str, write: Callable[[Path], None], label: str = "") -> bool:
        """Keep something. What goes wrong with the disk is reported, and no error.

        Args:
            kind: A word for what it is (`outputs`, `build`).
            key: Its name, from `key`.
            write: Writes its files into an empty folder.
            label: For people.

        Returns:
            Whether it is in the store now.
        """
        place = self._folder(kind, key)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with scratch_folder("entry", self.root, prefix=".irtools-") as folder:
                made = folder / "entry"
                made.mkdir()
                write(made)
                size = describe(made, kind, key, label)
                if size > self.largest:
                    return False
                _give_place(made, place, folder / "ruin")
            self.trim(self.limit)
        except OSError as error:
            reason = error.strerror or str(error)
            self._warn(f"{label or kind} was not cached: {self.folder}: {reason}")
            return False
        return True

    @contextmanager
    def making(self, key: str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold the right to make an entry, so that of two processes one waits for the other.

        A store that cannot be written gives it to everybody.
        """
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                stack.enter_context(locked(self.root / "locks" / key, on_wait))
            yield

    def sizes(self) -> tuple[StoredSize, ...]:
        """Return what there is, by kind."""
        found: dict[str, list[int]] = {}
        for _, size, folder in self._entries():
            found.setdefault(folder.parent.parent.name, []).append(size)
        return tuple(StoredSize(k, len(s), sum(s)) for k, s in sorted(found.items()))

    def others(self) -> tuple[Path, ...]:
        """Return stores of other versions in the same folder."""
        found = self.folder.glob("store-*") if self.folder.is_dir() else ()
        return tuple(sorted(path for path in found if path.name != _LAYOUT))

    def remove_others(self) -> int:
        """Remove stores of other versions; returns the bytes that were freed."""
        freed = 0
        for other in self.others():
            freed += sum(path.stat().st_size for path in other.rglob("*") if path.is_file())
            shutil.rmtree(other, ignore_errors=True)
        return freed

    def check(self) -> int:
        """Compare every entry with its hashes; damaged ones are reported and removed.

        Returns:
            How many were damaged.
        """
        damaged = 0
        for _, _, folder in self._entries():
            with self.open(folder.parent.parent.name, folder.name) as entry:
                damaged += entry is None
        return damaged

    def trim(self, limit: int) -> int:
        """Remove what was not used for longest until the rest fits; what is in use stays.

        Returns:
            Bytes that were freed.
        """
        entries = sorted(self._entries(), key=lambda entry: entry[0])
        total, freed = sum(size for _, size, _ in entries), 0
        for _, size, folder in entries:
            if total - freed <= limit:
                break
            freed += size if self._remove(folder) else 0
        return freed

    def _folder(self, kind: str, key: str) -> Path:
        return self.root / kind / key[:2] / key

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """Yield time of the last use, bytes and folder of each entry."""
        for listed in self.root.glob(f"*/??/*/{LIST}"):
            with contextlib.suppress(OSError):  # Another process may have removed it.
                files = [path.stat() for path in listed.parent.rglob("*") if path.is_file()]
                size = sum(stat.st_size for stat in files)
                yield listed.stat().st_mtime, size, listed.parent

    def _remove(self, folder: Path) -> bool:
        """Take an entry out of its place in one step; False where it is in use."""
        with contextlib.suppress(OSError):
            descriptor = os.open(folder / LIST, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with scratch_folder("entry", self.root, prefix=".irtools-") as trash:
                    folder.rename(trash / "removed")
                return True
            finally:
                os.close(descriptor)
        return False


def _give_place(made: Path, place: Path, trash: Path) -> None:
    """Rename an entry into its place, unless another process was quicker."""
    try:
        made.rename(place)
    except OSError:
        if not place.is_dir():
            raise
        if not (place / LIST).exists():  # It was damaged.
            place.rename(trash)
            made.rename(place)
