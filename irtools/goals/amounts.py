"""Bounds as text: `1%`, `3x`, `10ms`, `25MB`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from irtools.errors import OptionError
from irtools.words import size_text

__all__ = ["SHARE", "SIZE", "SPEED", "TIME", "Scale", "read_size"]

_AMOUNT = re.compile(r"([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([a-zA-Z%]*)")


@dataclass(frozen=True)
class Scale:
    """How bounds of one kind are written.

    Attributes:
        units: Unit to its factor; `""` where a bare number is one.
        relative: Units in which a bound is a multiple of the original's figure, to their factor.
        example: What a message shows.
    """

    units: Mapping[str, float]
    relative: Mapping[str, float]
    example: str

    def read(self, text: str, what: str) -> tuple[float, bool]:
        """Return a bound and whether it is relative to the original's figure.

        Raises:
            OptionError: It is not such an amount.
        """
        match = _AMOUNT.fullmatch(text.strip())
        number, unit = (match[1], match[2]) if match else ("", "?")
        for units, relative in ((self.units, False), (self.relative, True)):
            for name, factor in units.items():
                if unit.lower() == name.lower():
                    # In decimals, so that 95% is 0.95 and not the float next to it.
                    found = float(Decimal(number) * Decimal(repr(factor)))
                    if math.isfinite(found):
                        return found, relative
        raise OptionError(f"{what} is {text!r}, expected {self.example}")

    def write(self, bound: float, *, relative: bool) -> str:
        """Return the text that `read` reads back equal."""
        if relative:
            return f"{bound:.12g}x"
        if self is SIZE:
            shown = size_text(round(bound)).replace(" ", "")
            return shown if self.read(shown, "")[0] == bound else f"{round(bound)}B"
        name, factor = next(iter(self.units.items()))
        return f"{bound / factor:.12g}{name}"


_TIMES_ORIGINAL = {"x": 1.0, "%": 0.01}
SHARE = Scale(
    {"%": 0.01, "": 1.0},
    {"x": 1.0},
    "a share such as 1% or 0.01, or 0.01x: times the original's",
)
SPEED = Scale({"": 1.0, "x": 1.0}, {}, "a factor such as 3 or 3x")
TIME = Scale(
    {"ms": 1.0, "us": 0.001, "s": 1000.0},
    _TIMES_ORIGINAL,
    "a time such as 10ms, or 50% or 0.5x of the original's",
)
SIZE = Scale(
    {
        "MB": 1e6,
        "kB": 1e3,
        "GB": 1e9,
        "TB": 1e12,
        "MiB": 2.0**20,
        "KiB": 2.0**10,
        "GiB": 2.0**30,
        "B": 1.0,
    },
    _TIMES_ORIGINAL,
    "a size such as 25MB, or 25% or 0.25x of the original's",
)


def read_size(text: str, what: str) -> int:
    """Return the bytes of a size such as `25MB`, which is not relative to anything.

    Args:
        what: What to call it in a message.

    Raises:
        OptionError: It is not one.
    """
    size = Scale(SIZE.units, {}, "a size such as 80MB or 1.5GB")
    return int(size.read(text, what)[0])
