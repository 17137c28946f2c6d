"""Where results go: checked before the work, written after it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from irtools.errors import FileError, UsageError

__all__ = ["Destination", "check_writable", "stem_of"]


_COMPILED = (".ort", ".xml", ".blob")
"""Suffixes of what runtimes load besides ONNX."""


@dataclass(frozen=True)
class Destination:
    """An output path of a verb.

    Attributes:
        path: A file, or a folder for what the target loads.
        is_folder: Which of the two.
    """

    path: Path
    is_folder: bool

    @classmethod
    def of(cls, out: str | None, source: str, *, force: bool) -> Destination:
        """Decide on the output, and refuse early what could not be written.

        Args:
            out: `file.onnx`, a folder, or None for `<stem>.opt.onnx` in the current folder.
            source: What is read; must not be overwritten. Empty for a model in memory.
            force: Existing files may be replaced.

        Raises:
            UsageError: The output is the input, or exists and `force` is not given.
            FileError: The folder to write into does not exist or cannot be written to.
        """
        if out is None:
            out = f"{stem_of(source)}.opt.onnx"
        path = Path(out)
        is_folder = path.is_dir() or out.endswith(("/", os.sep)) or not path.suffix
        if not is_folder and path.suffix != ".onnx":
            hint = "; `irc compile` writes what a runtime loads" * (path.suffix in _COMPILED)
            raise UsageError(f"output {out} is neither an .onnx file nor a folder{hint}")
        destination = cls(path, is_folder)
        destination._check(source, force)
        return destination

    @classmethod
    def file(cls, out: str, source: str, *, force: bool) -> Destination:
        """Decide on a file. Raises as `of`."""
        path = Path(out)
        if path.is_dir() or path.suffix != ".onnx":
            raise UsageError(f"output {out} is not an .onnx file")
        destination = cls(path, is_folder=False)
        destination._check(source, force)
        return destination

    @classmethod
    def artifact(cls, out: str, source: str, *, force: bool) -> Destination:
        """Decide on a folder for what a target loads, or on its main file. Raises as `of`."""
        path = Path(out)
        if path.is_dir() or path.suffix not in (".onnx", *_COMPILED):
            return cls.folder(out, source, force=force)
        destination = cls(path, is_folder=False)
        destination._check(source, force)
        return destination

    @classmethod
    def folder(cls, out: str, source: str, *, force: bool) -> Destination:
        """Decide on a folder. Raises as `of`."""
        destination = cls(Path(out), is_folder=True)
        if destination.path.is_file():
            raise UsageError(f"output {out} is a file, expected a folder")
        destination._check(source, force)
        return destination

    @property
    def stem(self) -> str:
        """Name of the files to write, without suffix."""
        return "model" if self.is_folder else self.path.stem

    def _check(self, source: str, force: bool) -> None:
        if source and _is_same(self.path, Path(source)):
            raise UsageError(f"output {self.path} is the input: give another name with -o")
        parent = Path(source).parent
        if self.is_folder and _is_same(self.path, parent) and Path(source).is_file():
            raise UsageError(f"output {self.path} is the folder of the input: give another one")
        if _is_taken(self.path) and not force:
            raise UsageError(f"{self.path} exists: give another name with -o, or --force")
        check_writable(self.path)


def check_writable(path: Path) -> None:
    """Refuse a path whose folder is missing or read-only, before hours of work are lost.

    Raises:
        FileError: It cannot be written.
    """
    folder = path.parent
    if not folder.is_dir():
        raise FileError(f"there is no folder {folder} to write {path.name} into")
    if not os.access(folder, os.W_OK):
        raise FileError(f"the folder {folder} cannot be written to")


def stem_of(source: str) -> str:
    """Return the name of a source without folders and suffix."""
    name = Path(source.rstrip("/")).name
    return name.removesuffix(".onnx").replace(":", ".") or "model"


def _is_same(a: Path, b: Path) -> bool:
    try:
        return a.samefile(b)
    except OSError:
        return False


def _is_taken(path: Path) -> bool:
    if path.is_dir():
        return any(path.iterdir())
    return path.exists() or path.is_symlink()
