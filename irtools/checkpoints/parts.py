"""The tensors that make one quantized weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from irtools.checkpoints.tensor_files import StoredArray
from irtools.errors import ModelError
from irtools.words import printable

__all__ = ["Parts", "spread"]


@dataclass(frozen=True)
class Parts:
    """Tensors of one weight, by what follows the name of its module.

    Attributes:
        folder: The checkpoint, for messages.
        name: Of the module (`model.layers.0.mlp.up_proj`).
    """

    folder: Path
    name: str
    stored: Mapping[str, StoredArray]

    def has(self, suffix: str) -> bool:
        return suffix in self.stored

    def shape(self, suffix: str) -> tuple[int, ...]:
        """Return a tensor's shape.

        Raises:
            ModelError: There is no such tensor.
        """
        return self._found(suffix).shape

    def kind(self, suffix: str) -> str:
        """Return a tensor's type (`I32`).

        Raises:
            ModelError: There is no such tensor.
        """
        return self._found(suffix).kind

    def read(self, suffix: str, kinds: Sequence[str], rank: int | None = None) -> np.ndarray:
        """Return a tensor.

        Args:
            kinds: The types that it may have (`I32`).
            rank: Its axes; None: any number.

        Raises:
            ModelError: It is absent, or not so.
        """
        found = self._found(suffix)
        if found.kind not in kinds or (rank is not None and len(found.shape) != rank):
            axes = "" if rank is None else f" with {rank} axes"
            raise self.error(
                f"{suffix} is {found.kind} {list(found.shape)}, expected {' or '.join(kinds)}{axes}"
            )
        return found.read()

    def error(self, text: str) -> ModelError:
        """Return an error about this weight."""
        return ModelError(f"{self.folder}: {printable(self.name)!r}: {text}")

    def contradiction(self, found: str, config: str) -> ModelError:
        """Return an error about tensors that are not what the config says."""
        return self.error(
            f"{found}, and the quantization config says {config}; give the config that belongs to "
            "the weights"
        )

    def _found(self, suffix: str) -> StoredArray:
        if suffix not in self.stored:
            there = ", ".join(sorted(self.stored))
            raise self.error(f"has no {suffix} (there are {there}); the weights are incomplete")
        return self.stored[suffix]


def spread(
    values: np.ndarray, shape: tuple[int, int], block: tuple[int, int], parts: Parts, what: str
) -> np.ndarray:
    """Return one value for each number of a weight, out of one a block.

    Args:
        values: [blocks of rows, blocks of columns].
        shape: Of the weight.
        block: Rows and columns of a block; those at the end may be smaller.

    Raises:
        ModelError: There are more or fewer values than blocks.
    """
    wanted = tuple(-(-size // b) for size, b in zip(shape, block, strict=True))
    if values.shape != wanted:
        raise parts.error(
            f"{what} is {list(values.shape)}, and a weight {list(shape)} in blocks of "
            f"{list(block)} has {list(wanted)}"
        )
    # A block may say to be larger than any weight.
    high, wide = (min(b, size) for b, size in zip(block, shape, strict=True))
    rows = np.repeat(values, high, axis=0)[: shape[0]]
    return np.repeat(rows, wide, axis=1)[:, : shape[1]]
