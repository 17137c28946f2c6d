"""Paths that must stay below one folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from irtools.errors import FileError, UsageError
from irtools.words import printable

__all__ = ["RootFolder"]


@dataclass(frozen=True)
class RootFolder:
    """A folder, and the paths below it by their texts relative to it.

    Links are followed before a path is judged, so that none leads out.

    Attributes:
        path: The folder, absolute and without links.
    """

    path: Path

    @classmethod
    def of(cls, folder: str | os.PathLike[str]) -> RootFolder:
        """Return it for a folder that exists.

        Raises:
            FileError: There is no such folder.
        """
        path = Path(os.path.realpath(folder))
        if not path.is_dir():
            raise FileError(f"there is no folder {folder}")
        return cls(path)

    def existing(self, text: str) -> Path:
        """Return the file or folder that a text names.

        Raises:
            UsageError: It is outside the folder.
            FileError: It does not exist.
        """
        path = self._below(text)
        if not path.exists():
            raise FileError(f"there is no {printable(text)} in {self.path}")
        return path

    def new(self, text: str) -> Path:
        """Return where a text says that something is to be written, which need not exist.

        Raises:
            UsageError: It is outside the folder, the folder itself, or hidden.
        """
        path = self._below(text)
        names = path.relative_to(self.path).parts
        if not names or any(name.startswith(".") for name in names):
            raise UsageError(f"{printable(text)!r} is not a name for a result")
        return path

    def name_of(self, path: Path) -> str:
        """Return the text of a path below the folder."""
        return path.relative_to(self.path).as_posix()

    def _below(self, text: str) -> Path:
        if not text or "\0" in text:
            raise UsageError(f"{printable(text)!r} does not name a file")
        path = Path(os.path.realpath(self.path / text))
        if not path.is_relative_to(self.path):
            raise UsageError(f"{printable(text)} is outside {self.path}, the only folder in reach")
        return path
