"""What the two passes to 16-bit floats share: options and counters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from irtools.errors import OptionError
from irtools.passmanager import Exactness, Pass, option

__all__ = ["HalfPass"]


@dataclass(frozen=True)
class HalfPass(Pass):
    """A pass to a 16-bit floating type."""

    exactness: ClassVar[Exactness] = Exactness.LOSSY
    requires: ClassVar[tuple[str, ...]] = ("lift-constants",)
    counters: ClassVar[dict[str, str]] = {
        "num-stored": "weights stored in 16 bits",
        "num-computed": "nodes that compute in 16 bits",
        "num-skipped-float32": "nodes that stay in float32",
        "num-lacking-half-rule": "of these, because nothing is declared of their operator",
        "num-skipped-large": "tensors kept in float32 because 16 bits cannot hold their values",
        "num-skipped-small-values": "tensors kept in float32 that would lose more than 1 %",
        "num-skipped-dtype": "weights left alone because they are not float32",
    }

    min_size: int = option(1024, "weights below so many elements are stored as they are")

    def __post_init__(self) -> None:
        if self.min_size < 1:
            raise OptionError(f"min-size is {self.min_size}, expected 1 or more")
