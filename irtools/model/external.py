"""Weights outside the model file: which locations are believed, and how they are opened.

ONNX names a weight file by a path that whoever wrote the model chose. CVE-2022-25882,
CVE-2024-27318, CVE-2026-27489, CVE-2026-34446 and CVE-2026-34447 each read a file that the path
had no business with. Here a path is plain, relative and downward, and where links lead out of the
model's folder they lead into the folder that holds the real model file, which is how model hubs
store what they download.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import onnx

from irtools.errors import ModelError
from irtools.model.files import MappedFile, reason
from irtools.model.scopes import shown

__all__ = ["ExternalFiles", "TensorPlace"]

_KEYS = frozenset({"location", "offset", "length", "checksum", "basepath"})
_NUMBER = re.compile(r"[0-9]{1,19}", re.ASCII)


@dataclass(frozen=True)
class TensorPlace:
    """Where the bytes of a tensor lie."""

    file: MappedFile
    offset: int
    length: int


class ExternalFiles:
    """The weight files of one model, each opened once.

    Args:
        model_path: Path of the model file, as the caller named it; None where there is no file.
    """

    def __init__(self, model_path: Path | None) -> None:
        self._files: dict[str, MappedFile] = {}
        self._folder: Path | None = None
        self._roots: tuple[Path, ...] = ()
        if model_path is not None:
            absolute = model_path.absolute()
            self._folder = absolute.parent
            roots = (absolute.parent.resolve(), absolute.resolve().parent)
            self._roots = tuple(dict.fromkeys(roots))

    @property
    def files(self) -> tuple[MappedFile, ...]:
        """The files opened so far."""
        return tuple(self._files.values())

    def find(self, tensor: onnx.TensorProto, where: str, num_bytes: int) -> TensorPlace:
        """Return where an external tensor's bytes lie.

        Raises:
            ModelError: The entries are not as they should be, the location is not allowed, the
                file is missing or too short, or the length is not that of the tensor.
        """
        entries = _entries(tensor, where)
        location = entries.get("location", "")
        if self._folder is None:
            raise ModelError(
                f"{where} has its data in {shown(location)}, but the model was not read from a file"
            )
        file = self._files.get(location)
        if file is None:
            file = self._files[location] = self._open(location, where)
        size = len(file.data)
        offset = _number(entries, "offset", where) or 0
        length = _number(entries, "length", where)
        if length is not None and length != num_bytes:
            raise ModelError(
                f"{where} has an external length of {length} bytes, its type and shape call for "
                f"{num_bytes}"
            )
        if offset + num_bytes > size:
            raise ModelError(
                f"{where} lies at {offset} to {offset + num_bytes} of {shown(location)}, "
                f"which has only {size} bytes; the file is too short or not the one of this model"
            )
        return TensorPlace(file, offset, num_bytes)

    def _open(self, location: str, where: str) -> MappedFile:
        assert self._folder is not None
        _check_location(location, where)
        path = self._folder / location
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise ModelError(
                f"{where} needs the weight file {shown(location)}, looked for in "
                f"{shown(self._folder)}: {reason(error)}"
            ) from error
        root = next((root for root in self._roots if real.is_relative_to(root)), None)
        if root is None:
            raise ModelError(
                f"{where} has the location {shown(location)}, a link that leads outside the "
                "model's folder; links are followed only inside it"
            )
        try:
            file = MappedFile.adopt(_open_below(root, real.relative_to(root)), path)
        except OSError as error:
            if isinstance(error, ModelError):
                raise
            raise ModelError(f"{where}: cannot read {shown(path)}: {reason(error)}") from error
        _check_hard_links(file, real, where)
        return file


def _entries(tensor: onnx.TensorProto, where: str) -> Mapping[str, str]:
    entries: dict[str, str] = {}
    for entry in tensor.external_data:
        if entry.key not in _KEYS:
            raise ModelError(
                f"{where} has an external-data key {shown(entry.key)}, which is unknown"
            )
        if entry.key in entries:
            raise ModelError(f"{where} has the external-data key {entry.key!r} twice")
        entries[entry.key] = entry.value
    return entries


def _number(entries: Mapping[str, str], key: str, where: str) -> int | None:
    text = entries.get(key)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise ModelError(
            f"{where} has the external {key} {shown(text)}, expected a number of bytes"
        )
    return int(text)


def _check_location(location: str, where: str) -> None:
    """Refuse every location that is not a plain relative path downward."""
    fault = ""
    if not location:
        fault = "is empty"
    elif any(ord(c) < 32 for c in location):
        fault = "holds a control character or zero byte"
    elif any(c in location for c in "*:\\"):
        # `*/_ORT_MEM_ADDR_/*` makes ONNX Runtime read an address; the others are Windows paths.
        fault = "holds one of * : \\"
    elif location.startswith("/"):
        fault = "is an absolute path"
    elif ".." in PurePosixPath(location).parts:
        fault = "leads out of the model's folder"
    if fault:
        raise ModelError(f"{where} has the external location {shown(location)}, which {fault}")


def _open_below(root: Path, relative: Path) -> int:
    """Open a file below a folder, refusing any link that appeared since the path was resolved."""
    folder_flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    folder = os.open(root, folder_flags)
    try:
        for part in relative.parts[:-1]:
            inner = os.open(part, folder_flags | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        name = relative.name or "."
        return os.open(name, flags, dir_fd=folder)
    finally:
        os.close(folder)


def _check_hard_links(file: MappedFile, real: Path, where: str) -> None:
    """Refuse a file that has names elsewhere: it may be anything, given a second name here.

    Names in the same folder are counted, so that two models may share weights by hard links.
    """
    links = os.fstat(file.descriptor).st_nlink
    if links <= 1:
        return
    with os.scandir(real.parent) as entries:
        here = sum(
            entry.inode() == file.identity[1] and entry.is_file(follow_symlinks=False)
            for entry in entries
        )
    if here < links:
        raise ModelError(
            f"{where} has its data in {shown(real)}, a file that has another name (hard link) "
            "outside this folder; replace it by a copy of its own"
        )
