"""Tensors by name from files: safetensors, or pickles that hold nothing else."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from irtools.errors import ModelError
from irtools.frontends.torch.failures import first_line

__all__ = ["read_tensors"]


def read_tensors(path: Path, *, instead: str, failed: str = "cannot be read") -> Any:
    """Return what a file holds; of a pickle nothing but tensors and containers is unpacked.

    Args:
        path: `.safetensors`, else what `torch.save` wrote.
        instead: What to save in place of a pickle that holds more than tensors.
        failed: What is said of a file that is damaged.

    Raises:
        ModelError: It cannot be read, or holds more than tensors.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} is a pickle that holds more than tensors, which is never unpacked; save "
            f"{instead}"
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, SafetensorError) as error:
        raise ModelError(f"{path} {failed}: {first_line(error)}") from error
