"""Outputs of runs: as many as there is time for, and what they say.

Imports nothing but numpy, so that a child process costs little time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TypeAlias, TypeVar

import numpy as np

__all__ = ["Outputs", "is_finite", "says_nothing", "within"]

Outputs: TypeAlias = Mapping[str, np.ndarray]
T = TypeVar("T")


def within(seconds: float, found: Iterator[T]) -> Iterator[T]:
    """Yield at least one, and no more once so many seconds are over."""
    deadline = time.monotonic() + seconds
    for one in found:
        yield one
        if time.monotonic() > deadline:
            return


def says_nothing(outputs: Outputs) -> bool:
    """Whether no output has an element."""
    return bool(outputs) and not any(np.asarray(array).size for array in outputs.values())


def is_finite(outputs: Outputs) -> bool:
    """Whether no output has NaN or infinity."""
    return all(np.isfinite(y).all() for y in outputs.values() if y.dtype.kind == "f")
