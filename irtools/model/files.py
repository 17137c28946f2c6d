"""Opening untrusted files, and saying what they are when they are not a model."""

from __future__ import annotations

import codecs
import errno
import mmap
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from irtools.errors import FileError, ModelError
from irtools.model.scopes import shown

__all__ = ["MappedFile", "check_is_onnx"]


@dataclass(frozen=True, eq=False)
class MappedFile:
    """A regular file, open and mapped into memory for reading.

    The mapping follows the file and not its name: what is renamed over it later does not show.

    Attributes:
        path: Where it was found.
        data: Its bytes, from the page cache.
        descriptor: Open as long as the object lives.
        stamp: Device, inode, size and times at opening.
    """

    path: Path
    data: memoryview
    descriptor: int
    stamp: tuple[int, ...]

    @classmethod
    def open(cls, path: Path) -> MappedFile:
        """Open a file by its path, following links.

        Raises:
            FileError: There is no such file, or it cannot be read.
            ModelError: It is not a regular file.
        """
        try:
            # Looking first: opening a pipe or a device may block or have effects.
            _check_regular(path.stat(), path)
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            return cls.adopt(os.open(path, flags), path)
        except (OSError, ValueError) as error:
            if isinstance(error, (FileError, ModelError)):
                raise
            raise FileError(f"cannot read {shown(path)}: {reason(error)}") from error

    @classmethod
    def adopt(cls, descriptor: int, path: Path) -> MappedFile:
        """Map an open file, and own its descriptor."""
        try:
            status = os.fstat(descriptor)
            _check_regular(status, path)
            size = status.st_size
            mapped = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) if size else b""
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, memoryview(mapped), descriptor, _stamp(status))

    def __del__(self) -> None:
        os.close(self.descriptor)

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode: the same for every name of one file."""
        return self.stamp[0], self.stamp[1]

    def check_unchanged(self) -> None:
        """Check that nothing wrote into the file since it was opened.

        Raises:
            ModelError: Something did; what was read from it cannot be trusted.
        """
        if _stamp(os.fstat(self.descriptor)) != self.stamp:
            raise ModelError(f"{shown(self.path)} was changed while it was in use; start again")

    @property
    def is_named(self) -> bool:
        """Whether its path still leads to this file, unchanged, so that others can open it."""
        try:
            return _stamp(self.path.stat()) == self.stamp
        except OSError:
            return False

    def release(self, offset: int, length: int) -> None:
        """Give the pages of a part back to the system; they are read again when they are needed.

        Without that, all that was ever read counts as resident memory of the process.
        """
        mapped = self.data.obj
        if not isinstance(mapped, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED"):
            return
        start = offset // mmap.PAGESIZE * mmap.PAGESIZE
        if offset + length > start:
            mapped.madvise(mmap.MADV_DONTNEED, start, offset + length - start)


def reason(error: BaseException) -> str:
    """Say in words why the system refused something."""
    match error:
        case OSError(errno=errno.ENOENT):
            return "there is no such file"
        case OSError(errno=errno.ENOSPC | errno.EDQUOT | errno.EFBIG):
            return f"the disk or quota is full ({error.strerror})"
        case OSError() if error.strerror:
            return error.strerror
        case _:
            return str(error) or type(error).__name__


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _check_regular(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        kinds = {
            stat.S_IFDIR: "a folder",
            stat.S_IFIFO: "a pipe",
            stat.S_IFCHR: "a device",
            stat.S_IFBLK: "a device",
            stat.S_IFSOCK: "a socket",
        }
        kind = kinds.get(stat.S_IFMT(status.st_mode), "a special file")
        raise ModelError(f"{shown(path)} is {kind}, not a regular file; expected an ONNX file")


def check_is_onnx(head: bytes, path: Path) -> None:
    """Check by its first bytes that a file may be an ONNX model.

    Raises:
        ModelError: It is something else; says what, and what to do.
    """
    found = _known_kind(head)
    if found:
        raise ModelError(f"{shown(path)} is {found}")


def _known_kind(head: bytes) -> str:
    text = head.lstrip()[:64].lower()
    starts: tuple[tuple[bytes, str], ...] = (
        (b"version https://git-lfs", "a git-lfs pointer; fetch the model with `git lfs pull`"),
        (b"<!doctype", "a web page (HTML), not a model; download the file itself"),
        (b"<html", "a web page (HTML), not a model; download the file itself"),
        (b"<?xml", "an XML file, such as an OpenVINO IR; expected the ONNX file it was made from"),
        (b"pk\x03\x04", "a zip archive or a PyTorch checkpoint; export the model to ONNX first"),
        (b"gguf", "a GGUF file; expected ONNX"),
        (b"\x89hdf", "an HDF5 file, such as a Keras model; export it to ONNX first"),
        (b"\x1f\x8b", "a gzip archive; unpack it first"),
        (b"{", "a JSON file, not an ONNX model"),
    )
    if not head:
        return "empty (0 bytes); expected an ONNX model"
    for start, kind in starts:
        if text.startswith(start):
            return kind
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05" and head[1:2]:
        return "a Python pickle, such as a PyTorch checkpoint; it is never opened here"
    if head[8:10] == b'{"':
        return "a safetensors file: weights without a graph; export the model to ONNX first"
    if head[4:8] in (b"ORTM", b"TFL3"):
        return "an ORT- or TFLite-format model; expected the ONNX file it was made from"
    if all(byte in b"\t\n\r\f" or byte >= 32 for byte in head) and _is_utf8(head):
        return "a text file, not an ONNX model"
    return ""


def _is_utf8(head: bytes) -> bool:
    try:
        # The cut may fall into the middle of a character, which an incremental decoder allows.
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True
