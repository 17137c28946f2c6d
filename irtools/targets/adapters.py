"""Adapters that a model takes at run time: files that a target writes and its runner switches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from irtools.targets.signature import Feeds

__all__ = ["SwitchesAdapters", "TakesAdapters"]


@runtime_checkable
class TakesAdapters(Protocol):
    """A target whose runtime loads adapters from files of their own."""

    def write_adapter(self, path: Path, arrays: Feeds) -> None:
        """Write an adapter.

        Args:
            path: The file.
            arrays: What it gives to inputs of a model, by their names.
        """


@runtime_checkable
class SwitchesAdapters(Protocol):
    """A runner that can give a model the arrays of an adapter with all feeds."""

    def use_adapter(self, path: Path | None) -> None:
        """Use an adapter for what begins from now on; None: the base alone.

        Raises:
            FileError: There is no such file, or it is not an adapter.
            ModelError: It was made for another model.
        """
