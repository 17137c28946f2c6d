"""What is known of a checkpoint that was written as a plain folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Unpacked"]


@dataclass(frozen=True)
class Unpacked:
    """What unpacking found.

    Attributes:
        notes: What the user should know.
        grids: Parameters whose numbers are whole steps in blocks along the input channels, with how
            the checkpoint calls that (`Q4_1`).
    """

    notes: tuple[str, ...] = ()
    grids: Mapping[str, str] = field(default_factory=dict)
