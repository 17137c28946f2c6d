"""Numbers in an order: rounds of a benchmark, tensors along a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from irtools.pages.charts.canvas import AXIS, LEFT, Canvas, Chart
from irtools.pages.charts.scale import Scale

__all__ = ["Series", "lines"]

_HEIGHT = 190
_DOTTED_UP_TO = 60


@dataclass(frozen=True)
class Series:
    """Numbers of one thing.

    Attributes:
        kind: Class of its marks.
        name: What it is.
        values: In order; None: missing.
        titles: What the pointer shows of each.
    """

    kind: str
    name: str
    values: tuple[float | None, ...]
    titles: tuple[str, ...]


def lines(
    caption: str,
    found: Sequence[Series],
    *,
    unit: str = "",
    across: str = "",
    log: bool = False,
    marked: Sequence[int] = (),
    note: str = "",
) -> Chart:
    """Draw a line for each series.

    Args:
        unit: After the numbers upwards.
        across: What the order is, at the axis.
        log: Equal factors upwards are equally far apart.
        marked: Places that a line across the chart points at.
    """
    numbers = [v for one in found for v in one.values if v is not None]
    scale = Scale.of(numbers, log=log, margin=0.12)
    top, bottom = 12.0, 12.0 + _HEIGHT
    canvas = Canvas(caption, bottom + AXIS)
    canvas.upwards(scale, top, bottom, unit)
    length = max((len(one.values) for one in found), default=1)
    places = [
        LEFT + (1 - LEFT) * 0.97 * (n / (length - 1) if length > 1 else 0.5) for n in range(length)
    ]
    for place in marked:
        canvas.line(places[place], top, places[place], bottom, "base")
    for one in found:
        _draw(canvas, one, places, lambda v: bottom - scale.place(v) * (bottom - top))
    canvas.text(0.5, bottom + 16, across, "tick")
    keys = tuple((one.kind, one.name) for one in found)
    return Chart(caption, canvas.svg(), keys if len(keys) > 1 else (), note)


def _draw(
    canvas: Canvas, one: Series, places: Sequence[float], height: Callable[[float], float]
) -> None:
    known = [
        (places[n], height(value), title)
        for n, (value, title) in enumerate(zip(one.values, one.titles, strict=True))
        if value is not None
    ]
    for (x1, y1, _), (x2, y2, _) in pairwise(known):
        canvas.line(x1, y1, x2, y2, f"line {one.kind}")
    radius = 4.0 if len(known) <= _DOTTED_UP_TO else 2.0
    for x, y, title in known:
        canvas.dot(x, y, one.kind, title, radius)


def _across(number: int, length: int) -> float:
    share = number / (length - 1) if length > 1 else 0.5
    return LEFT + (1 - LEFT) * 0.97 * share
