"""Numbers with their nouns."""

from __future__ import annotations

__all__ = ["counted", "tallied"]

_GROUPED_FROM = 10_000


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return `1 node`, `2 nodes`, `0 nodes`, `22,713,216 parameters`.

    Args:
        number: How many.
        noun: The singular, qualified as need be (`fused attention kernel`).
        plural: Where it is not the singular and an s (`entries`).
    """
    return f"{_grouped(number)} {noun if number == 1 else plural or noun + 's'}"


def tallied(number: int, what: str) -> str:
    """Return `weights left in float32 (1)`: for phrases in the plural that nothing inflects."""
    return f"{what} ({_grouped(number)})"


def _grouped(number: int) -> str:
    return f"{number:,}" if abs(number) >= _GROUPED_FROM else str(number)
