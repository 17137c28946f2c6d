"""Tables as text."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Cells"]


@dataclass(frozen=True)
class Cells:
    """A table as text.

    Attributes:
        headings: Of its columns.
        rows: Texts of the cells, row by row.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
