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
        yield _change(first.file_bytes, last.file_bytes)


def _change(before: int, after: int) -> str:
    """Return `3.78x smaller`; where two digits would show 1.00x, the bytes (`174 B smaller`)."""
    small, large = sorted((before, after))
    factor = f"{large / small:.2f}x"
    which = "smaller" if after < before else "larger"
    return f"{size_text(large - small) if factor == '1.00x' else factor} {which}"


class Sizes(Instrument):
    """Measures the file that the model makes, and its weights."""

    name: ClassVar[str] = "sizes"

    def begin(self, step: Step) -> None:
        self.after(step)

    def after(self, step: Step) -> None:
        step.figures.put(Size(step.workspace.size(step.deployed), step.model.weight_bytes))
