"""Numbers with their nouns and units."""

from __future__ import annotations

__all__ = ["counted", "size_text", "tallied"]

_GROUPED_FROM = 10_000


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return `1 node`, `2 nodes`, `0 nodes`, `22,713,216 parameters`.

    Args:
        number: How many.
        noun: The singular, qualified where necessary (`fused attention kernel`).
        plural: Where it is not the singular and an s (`entries`).
    """
    return f"{_grouped(number)} {noun if number == 1 else plural or noun + 's'}"


def tallied(number: int, what: str) -> str:
    """Return `weights left in float32 (1)`: for phrases in the plural that nothing inflects."""
    return f"{what} ({_grouped(number)})"


def size_text(size: int | None) -> str:
    """Print a number of bytes in decimal units (`23.4 MB`), as shops and disks count."""
    if size is None:
        return ""
    if size < 1000:
        return f"{size} B"
    value = float(size)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.5 or unit == "GB":
            break
    return f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"


def sqnr_text(sqnr_db: float) -> str:
    """Print a signal-to-noise ratio; without any noise two tensors are `equal`."""
    return "equal" if sqnr_db == float("inf") else f"{sqnr_db:.1f} dB"


def _grouped(number: int) -> str:
    return f"{number:,}" if abs(number) >= _GROUPED_FROM else str(number)
