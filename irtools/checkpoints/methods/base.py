"""What a method of quantization is to a reader."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar, Protocol

import numpy as np

from irtools.checkpoints.parts import Parts

__all__ = ["FLOATS", "Layout", "Method"]

FLOATS = ("F16", "BF16", "F32")
"""Types of scales."""


class Layout(Enum):
    """How the numbers of a weight lie along its input channels."""

    BLOCKS = "whole steps, which neighbours share"
    SCATTERED = "whole steps, which channels in another order share"
    OTHER = "no steps of one size"


class Method(Protocol):
    """How the weights of a checkpoint are stored.

    Attributes:
        main: The tensor that every quantized weight has, by what follows its module's name.
        others: Further tensors of a weight.
        unread: What belongs to activations and not to the weight.
    """

    main: ClassVar[str]
    others: ClassVar[tuple[str, ...]]
    unread: ClassVar[tuple[str, ...]]

    def weight(self, parts: Parts) -> np.ndarray:
        """Return a weight in float32, [outputs, inputs].

        Raises:
            ModelError: The tensors do not fit together, or not the config.
            UnsupportedError: Stored in a way that is not read.
        """

    def layout(self, parts: Parts) -> Layout:
        """Say how the numbers of a weight lie, one that `weight` has read."""
