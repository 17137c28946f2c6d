"""Texts and JSON documents as files: whole, or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irtools.errors import FileError
from irtools.files.scratch import scratch_folder
from irtools.words import one_line

__all__ = ["context_length", "fault_of_document", "json_text", "read_settings", "write_text"]

_LENGTHS = ("max_position_embeddings", "n_positions", "n_ctx")


def json_text(document: Mapping[str, object], *, any_number: bool = False) -> str:
    """Return a document as JSON text, one value a line.

    Args:
        document: What JSON knows.
        any_number: Also write numbers that JSON does not know (NaN, Infinity), for what irtools
            alone reads.

    Raises:
        ValueError: It holds such a number.
    """
    return json.dumps(document, indent=1, allow_nan=any_number) + "\n"


def read_settings(path: Path) -> dict[str, Any]:
    """Return a JSON file that another program wrote; nothing where it is not there, or no object.

    Raises:
        FileError: It cannot be read, or is not JSON.
    """
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read {path}: {one_line(error)}") from error
    return found if isinstance(found, dict) else {}


def context_length(settings: Mapping[str, object]) -> int | None:
    """Return on how many positions a network was trained, by its `config.json`; None: unsaid."""
    found = (settings.get(name) for name in _LENGTHS)
    return next((length for length in found if isinstance(length, int)), None)


def fault_of_document(document: object, format: str, version: int, remedy: str) -> str:
    """Return why a document is not of a format and version; empty where it is.

    Args:
        document: As it was parsed.
        remedy: What to do where it has another version.
    """
    if not isinstance(document, dict):
        return f"is not a document of format {format!r}, but {type(document).__name__}"
    if document.get("format") != format:
        found = document.get("format")
        return f"is not a document of format {format!r}" + f", but {found!r}" * (found is not None)
    if document.get("version") != version:
        return f"has version {document.get('version')!r}, expected {version}: {remedy}"
    return ""


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8; its place holds the old text or the whole new one.

    A link is followed; a pipe or a terminal is written to as it is.

    Raises:
        FileError: It cannot be written.
    """
    place = Path(os.path.realpath(path))
    try:
        if place.exists() and not place.is_file():
            place.write_text(text, encoding="utf-8")
            return
        with scratch_folder("staging", place.parent, prefix=".irtools-") as folder:
            made = folder / place.name
            made.write_text(text, encoding="utf-8")
            made.replace(place)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}") from error
