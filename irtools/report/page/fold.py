"""Long tables, which a reader opens."""

from __future__ import annotations

from irtools.pages.blocks import Block, Folded, Table

__all__ = ["folded"]

_OPEN = 12


def folded(table: Table) -> Block:
    """Return a table as it is where it is short, else folded under its caption."""
    if len(table.rows) <= _OPEN:
        return table
    return Folded(f"{table.caption} ({len(table.rows)})", (table,))
