"""What is known of a checkpoint that was written as a plain folder, and its other files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Unpacked", "is_weights", "link"]


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


def link(folder: Path, made: Path, wanted: Callable[[str], bool]) -> None:
    """Link the files of a folder whose names are wanted into another one."""
    for path in folder.iterdir():
        if wanted(path.name):
            (made / path.name).symlink_to(path.absolute())


def is_weights(name: str) -> bool:
    """Whether a file of this name holds weights as safetensors, or says where they are."""
    return name.endswith((".safetensors", ".safetensors.index.json"))
