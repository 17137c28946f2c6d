"""Estimates with their intervals, one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from irtools.pages.charts.canvas import AXIS, Canvas, Chart, fitting
from irtools.pages.charts.scale import Scale

__all__ = ["Estimate", "intervals"]

_ROW = 38


@dataclass(frozen=True)
class Estimate:
    """A figure of one thing.

    Attributes:
        name: Of the thing.
        shown: The figure as text.
        value: The figure.
        low: Lower end of its interval; the figure itself where it has none.
        high: Upper end.
        kind: Class of the mark (`before`, `after`).
        hollow: It does not count: the model after it is another one.
    """

    name: str
    shown: str
    value: float
    low: float
    high: float
    kind: str = "after"
    hollow: bool = False


def intervals(
    caption: str,
    found: Sequence[Estimate],
    *,
    unit: str = "",
    base: float | None = None,
    log: bool = False,
    note: str = "",
) -> Chart:
    """Draw a dot and a bar for each estimate, from the first one down.

    Args:
        unit: After the numbers of the axis.
        base: A number to compare with, drawn as a line.
        log: Equal factors are equally far apart.
    """
    ends = [end for one in found for end in (one.low, one.value, one.high)]
    scale = Scale.of([*ends, *([] if base is None else [base])], log=log)
    bottom = _ROW * len(found) + 4
    canvas = Canvas(caption, bottom + AXIS)
    canvas.across(scale, 0, bottom, unit)
    if base is not None:
        canvas.line(scale.place(base), 0, scale.place(base), bottom, "base")
    for number, one in enumerate(found):
        _draw(canvas, scale, one, _ROW * number)
    return Chart(caption, canvas.svg(), note=note)


def _draw(canvas: Canvas, scale: Scale, one: Estimate, top: float) -> None:
    y = top + 26
    title = f"{one.name}: {one.shown}"
    canvas.text(0, top + 14, one.name, "halo", limit=fitting(one.shown))
    if one.low < one.high:
        ends = scale.place(one.low), scale.place(one.high)
        canvas.line(ends[0], y, ends[1], y, f"line {one.kind}", title)
        for end in ends:
            canvas.line(end, y - 4, end, y + 4, f"line {one.kind}")
    canvas.dot(scale.place(one.value), y, f"{one.kind}{' hollow' * one.hollow}", title)
    canvas.text(1, top + 14, one.shown, "halo", limit=46)
