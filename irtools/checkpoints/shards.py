"""Weights of a checkpoint as files of bounded size, so that no more is in memory at a time."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from irtools.errors import FileError, ModelError
from irtools.files import json_text
from irtools.words import printable

__all__ = ["Shards"]

_SIZE = 1 << 29
_INDEX = "model.safetensors.index.json"


class Shards:
    """Writes safetensors files and their index into a folder.

    Leaving the `with` block writes what is left.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: dict[str, np.ndarray] = {}
        self._bytes, self._written = 0, 0
        self._places: dict[str, str] = {}

    def add(self, name: str, array: np.ndarray) -> None:
        """Add a weight.

        Raises:
            FileError: It cannot be written.
            ModelError: There is one of this name already.
        """
        if name in self._places or name in self._waiting:
            raise ModelError(f"the weight {printable(name)!r} is there twice")
        self._waiting[name] = np.ascontiguousarray(array)
        self._bytes += array.nbytes
        if self._bytes >= _SIZE:
            self._write()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            return
        self._write()
        index = {"metadata": {"total_size": self._written}, "weight_map": self._places}
        (self._folder / _INDEX).write_text(json_text(index), encoding="utf-8")

    def _write(self) -> None:
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        name = f"model-{len(set(self._places.values())) + 1:05}.safetensors"
        try:
            save_file(self._waiting, self._folder / name, {"format": "pt"})
        except (OSError, SafetensorError) as error:
            raise FileError(
                f"cannot write the weights in float32 to {self._folder}, is the disk full? "
                f"({printable(error)})"
            ) from error
        self._places |= dict.fromkeys(self._waiting, name)
        self._written += self._bytes
        self._waiting, self._bytes = {}, 0
