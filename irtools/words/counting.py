"""Numbers with their nouns."""

from __future__ import annotations

__all__ = ["counted"]

_GROUPED_FROM = 10_000


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return `1 node`, `2 nodes`, `0 nodes`, `22,713,216 parameters`.

    Args:
        number: How many.
        noun: The singular, qualified as need be (`fused attention kernel`).
        plural: Where it is not the singular and an s (`entries`).
    """
    shown = f"{number:,}" if abs(number) >= _GROUPED_FROM else str(number)
    return f"{shown} {noun if number == 1 else plural or noun + 's'}"
