"""Bars for the parts of something, before and after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from irtools.pages.charts.canvas import AXIS, Canvas, Chart, fitting
from irtools.pages.charts.scale import Scale

__all__ = ["Bar", "bars"]

_THICK = 9


@dataclass(frozen=True)
class Bar:
    """One thing, with a number for each series.

    Attributes:
        name: Of the thing.
        shown: Its numbers as text.
        values: One for each series; None: it has none.
    """

    name: str
    shown: str
    values: tuple[float | None, ...]


def bars(
    caption: str,
    found: Sequence[Bar],
    keys: Sequence[tuple[str, str]],
    *,
    unit: str = "",
    note: str = "",
) -> Chart:
    """Draw a bar for each number, those of one thing below each other.

    Args:
        keys: Class and name of each series.
        unit: After the numbers of the axis.
    """
    known = (v for one in found for v in one.values if v is not None and math.isfinite(v))
    scale = Scale(0.0, 1.02 * max(known, default=0.0))
    if not scale.high > 0:
        scale = Scale(0.0, 1.0)
    row = 22 + _THICK * len(keys)
    bottom = row * len(found) + 4
    canvas = Canvas(caption, bottom + AXIS)
    canvas.across(scale, 0, bottom, unit)
    for number, one in enumerate(found):
        top = row * number
        canvas.text(0, top + 14, one.name, "halo", limit=fitting(one.shown))
        canvas.text(1, top + 14, one.shown, "halo", limit=30)
        for place, (value, (kind, name)) in enumerate(zip(one.values, keys, strict=True)):
            if value is not None:
                y = top + 18 + _THICK * place
                title = f"{one.name}, {name}: {value:.4g}{unit}"
                canvas.bar(0, y, scale.place(value), _THICK - 1, kind, title)
    shown = tuple(keys) if len(keys) > 1 else ()
    return Chart(caption, canvas.svg(), shown, note)
