"""Outputs of models, kept between runs: by the hashes of all that decides them.

They are entries of the store that every part of irtools keeps its results in. Times that are quoted
are never kept: they are of one machine at one hour.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from irtools.files import STORE_LIMIT, Store
from irtools.measure.wire import decode, encode

__all__ = ["OutputCache", "default_cache"]

_KIND = "outputs"
_FILE = "arrays.npz"


def default_cache() -> Path:
    """Return where results are kept: `irtools` in `XDG_CACHE_HOME`, else in `~/.cache`."""
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "irtools"


class OutputCache:
    """Arrays in a store.

    Args:
        folder: Of the store; made when something is kept.
        limit: As `Store` takes it.
        warn: Told of damaged entries and of a disk that is full.
    """

    def __init__(
        self,
        folder: Path,
        limit: int = STORE_LIMIT,
        warn: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.store = Store(folder, limit, warn)

    @staticmethod
    def key(**parts: object) -> str:
        """Return the name of what these parts decide."""
        return Store.key(**parts)

    def get(self, key: str) -> Any | None:
        """Return what was kept: mappings, lists, numbers, arrays. None: nothing that is whole."""
        with self.store.open(_KIND, key) as entry:
            if entry is None:
                return None
            try:
                return decode((entry.folder / _FILE).read_bytes())
            except (OSError, ValueError):
                return None

    def put(self, key: str, value: Mapping[str, object]) -> bool:
        """Keep something; returns whether it is kept."""
        content = encode(value)
        return self.store.put(_KIND, key, lambda folder: _write(folder, content))


def _write(folder: Path, content: bytes) -> None:
    (folder / _FILE).write_bytes(content)
