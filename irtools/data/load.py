"""One door to data: a path or `module:function`."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from irtools.data.base import Dataset
from irtools.data.checks import fit_dataset
from irtools.data.npz import read_npz
from irtools.errors import DataError, FileError
from irtools.model import Model

__all__ = ["load_dataset"]


def load_dataset(spec: str, model: Model | ir.Model, *, label_column: str = "labels") -> Dataset:
    """Read data for a model."""
    path = Path(spec)
    if not path.exists():
        raise FileError(f"no such file or folder: {spec}")
    if path.suffix != ".npz":
        raise DataError(f"{spec}: unknown kind of data")
    return fit_dataset(read_npz(path, label_column), model).with_digest()
