"""The owner of an ONNX model: the only way in and out of a file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

__all__ = ["Interface", "Model", "SavedModel", "ValueInfo"]


@dataclass(frozen=True)
class ValueInfo:
    """Name, element type and shape of an input or output.

    Attributes:
        shape: Sizes; a name or None where dynamic; None where the rank is unknown.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None


@dataclass(frozen=True)
class Interface:
    """What callers of a model rely on."""

    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]


@dataclass(frozen=True)
class SavedModel:
    """Files that a save wrote, the model first, and their sizes in bytes."""

    files: tuple[Path, ...]
    size: int


class Model:
    """A model and where it came from.

    Attributes:
        ir: The model as onnx_ir holds it. Tensors in it are shared between clones and never
            written into.
        source: File or checkpoint that it was read from, or None.
    """

    def __init__(self, model: ir.Model, source: Path | None = None) -> None:
        self.ir = model
        self.source = source

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Model:
        """Read an ONNX file after checking that it is safe and sound to read."""
        return cls(ir.load(path), Path(path))

    def save(
        self, path: str | os.PathLike[str], *, external_data: bool | None = None
    ) -> SavedModel:
        """Write the model, atomically: the path holds the old file or the whole new one.

        Args:
            path: Where to.
            external_data: Weights in `<name>.data` beside the file; None: above 1.5 GB.
        """
        ir.save(self.ir, path)
        return SavedModel((Path(path),), Path(path).stat().st_size)

    def clone(self) -> Model:
        """Return a copy whose graph can be changed; tensors are shared."""
        return Model(self.ir.clone(), self.source)
