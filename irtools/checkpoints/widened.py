"""A large checkpoint folder whose weights take 16 bits, as a plain one in float32."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from irtools.checkpoints.shards import Shards
from irtools.checkpoints.tensor_files import StoredArray, tensors_in
from irtools.checkpoints.unpacked import Unpacked, is_weights, link
from irtools.errors import ModelError

__all__ = ["LARGE", "is_narrow", "widen"]

LARGE = 1 << 30
"""Bytes of weights in float32 from which on they are not held in memory."""

_NARROW = ("F16", "BF16")


def is_narrow(folder: Path) -> bool:
    """Whether a folder has so many weights of 16 bits that they are not to be held in float32.

    One that is damaged has not: what loads it says how.
    """
    try:
        weights = [tensor for tensor in tensors_in(folder).values() if _is_narrow(tensor)]
    except ModelError:
        return False
    return 4 * sum(math.prod(tensor.shape) for tensor in weights) >= LARGE


def widen(folder: Path, made: Path) -> Unpacked:
    """Write a checkpoint with its weights in float32 into a folder; other files are linked.

    Networks that are loaded from float32 map the file; from 16 bits they are made in memory.

    Raises:
        FileError: It cannot be written.
        ModelError: A file is damaged.
    """
    link(folder, made, lambda name: not is_weights(name))
    with Shards(made) as shards:
        for name, tensor in tensors_in(folder).items():
            found = tensor.read()
            shards.add(name, found.astype(np.float32) if _is_narrow(tensor) else found)
    return Unpacked()


def _is_narrow(tensor: StoredArray) -> bool:
    return tensor.kind in _NARROW
