"""Sizes of the model after every pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from irtools.measure.figures import Column, Figure, Measured
from irtools.passmanager import Instrument, Step
from irtools.words import size_text

__all__ = ["Size", "Sizes"]


def _cell(size: Size, original: Size | None) -> str:
    shown = size_text(size.file_bytes)
    if original is None or original is size or not original.file_bytes:
        return shown
    return f"{shown} ({original.file_bytes / size.file_bytes:.2f}x)"


@dataclass(frozen=True)
class Size(Figure):
    """Size of a model.

    Attributes:
        file_bytes: On disk, external data included.
        weight_bytes: Sum of the initializers and constants.
    """

    key: ClassVar[str] = "size"
    rank: ClassVar[int] = 20
    columns: ClassVar[tuple[Column, ...]] = (Column("size", _cell),)

    file_bytes: int
    weight_bytes: int

    @classmethod
    def summary(cls, rows: Sequence[Measured]) -> Iterator[str]:
        first, last = cls.of(rows[0]), cls.of(rows[-1])
        if first is None or last is None or first.file_bytes == last.file_bytes:
            return
        factor = first.file_bytes / last.file_bytes
        yield f"{factor:.2f}x smaller" if factor > 1 else f"{1 / factor:.2f}x larger"


class Sizes(Instrument):
    """Measures the file that the model makes, and its weights."""

    name: ClassVar[str] = "sizes"

    def begin(self, step: Step) -> None:
        self.after(step)

    def after(self, step: Step) -> None:
        step.figures.put(Size(step.workspace.size(step.written), step.model.weight_bytes))
