"""An entry of the store: a folder of files, and the list of their sizes and hashes."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irtools.errors import FileError
from irtools.files.hashes import file_hashes, files_below
from irtools.files.text import json_text

__all__ = ["LIST", "VERSION", "Entry", "describe", "inspected"]

VERSION = 1
_FORMAT = "irtools-cache"
LIST = "entry.json"
"""The file with the list; the last one to be written."""


@dataclass(frozen=True)
class Entry:
    """An entry that was found whole.

    Attributes:
        folder: Where its files are, as long as the `with` lasts.
        files: Their relative paths.
    """

    folder: Path
    files: tuple[str, ...]


def describe(folder: Path, kind: str, key: str, label: str) -> int:
    """Write the list of an entry's files; return the bytes of all."""
    names = files_below(folder)
    hashes = file_hashes(folder / name for name in names)
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": hashes[folder / name]}
        for name in names
    }
    document = {
        "format": _FORMAT,
        "version": VERSION,
        "kind": kind,
        "key": key,
        "label": label,
        "files": files,
    }
    (folder / LIST).write_text(json_text(document), encoding="utf-8")
    for name in (*names, LIST):
        with (folder / name).open("rb") as stream:
            os.fsync(stream.fileno())
    return sum(int(str(file["bytes"])) for file in files.values())


def inspected(folder: Path, key: str) -> tuple[str | None, tuple[str, ...]]:
    """Return what is wrong with an entry, or None, and its files."""
    try:
        document: Any = json.loads((folder / LIST).read_text(encoding="utf-8"))
        files: dict[str, Any] = document["files"]
        if document["key"] != key:
            return "its name is that of another entry", ()
        for name, file in files.items():
            size = (folder / name).stat().st_size
            if size != file["bytes"]:
                return f"{name} has {size} of {file['bytes']} bytes", ()
        found = file_hashes(folder / name for name in files)
        for name, file in files.items():
            if found[folder / name] != file["sha256"]:
                return f"{name} has other bytes than were written", ()
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing", ()
    except (OSError, FileError, ValueError, KeyError, TypeError, AttributeError):
        return f"{LIST} cannot be read", ()
    return None, tuple(files)
