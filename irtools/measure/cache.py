"""Outputs of models, kept between runs: by the hashes of all that decides them.

An entry is a file of plain arrays. It is written whole or not at all, one that cannot be read is
made again, and the least recently used ones go when the folder grows too large. Times are never
kept: they are of one machine at one hour.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irtools.measure.wire import decode, encode

__all__ = ["OutputCache", "default_cache"]

_FORMAT = "2"
_SUFFIX = ".outputs.npz"
_LIMIT_BYTES = 1 << 30


def default_cache() -> Path:
    """Return where outputs are kept: `irtools` in `XDG_CACHE_HOME`, else in `~/.cache`."""
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "irtools"


class OutputCache:
    """A folder of outputs.

    Args:
        folder: Where; made when something is kept.
        limit: Most bytes of all entries together; one larger than a quarter of it is not kept.
    """

    def __init__(self, folder: Path, limit: int = _LIMIT_BYTES) -> None:
        self.folder = folder
        self.limit = limit

    @staticmethod
    def key(**parts: object) -> str:
        """Return the name of what these parts decide."""
        text = "\n".join(f"{name}={parts[name]}" for name in sorted(parts))
        return hashlib.sha256(f"{_FORMAT}\n{text}".encode()).hexdigest()

    def get(self, key: str) -> Any | None:
        """Return what was kept: mappings, lists, numbers, arrays. None: nothing that is whole."""
        file = self._file(key)
        try:
            found = decode(file.read_bytes())
        except (OSError, ValueError):
            return None
        with contextlib.suppress(OSError):
            os.utime(file)  # It was used now.
        return found if isinstance(found, Mapping) and found.get("key") == key else None

    def put(self, key: str, value: Mapping[str, object]) -> str | None:
        """Keep something; return why it was not kept, or None."""
        content = encode({**value, "key": key})
        if len(content) > self.limit // 4:
            return None
        file = self._file(key)
        temporary = file.with_name(f".{key[:16]}-{secrets.token_hex(4)}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(content)
                temporary.replace(file)
            finally:
                temporary.unlink(missing_ok=True)
            self._shrink()
        except OSError as error:
            return f"outputs were not cached: {self.folder}: {error.strerror}"
        return None

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"

    def _shrink(self) -> None:
        """Remove the entries that were not used for longest, until the rest fits."""
        entries = []
        for path in self.folder.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(OSError):  # Another run may have removed it.
                stat = path.stat()
                entries.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries, key=lambda entry: entry[0]):
            if total <= self.limit:
                return
            with contextlib.suppress(OSError):
                path.unlink()
            total -= size
