"""Things by two figures, with intervals of both, and the front of the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from irtools.pages.charts.canvas import AXIS, LEFT, Canvas, Chart
from irtools.pages.charts.scale import Scale

__all__ = ["Dot", "scatter"]

_HEIGHT = 300
_NAMED_UP_TO = 12

Ends = tuple[float, float, float]
"""A figure and the ends of its interval: value, low, high."""


@dataclass(frozen=True)
class Dot:
    """One thing.

    Attributes:
        name: Written next to it where there are few.
        title: What the pointer shows.
        x: Figure across.
        y: Figure upwards.
        kind: Class of the mark.
        hollow: It was not taken.
        radius: In pixels.
    """

    name: str
    title: str
    x: Ends
    y: Ends
    kind: str = "after"
    hollow: bool = False
    radius: float = 5.0


def scatter(
    caption: str,
    found: Sequence[Dot],
    axes: tuple[str, str],
    *,
    log: bool = False,
    lower_is_better: bool = False,
    keys: Sequence[tuple[str, str]] = (),
    note: str = "",
) -> Chart:
    """Draw each thing with its intervals, and as steps the front that none is better than.

    Args:
        axes: What is across, of which more is better, and upwards.
        log: Equal factors across are equally far apart.
        lower_is_better: Less of what is upwards is better.
        keys: Classes of marks and what they are.
    """
    x, y = (
        Scale.of([end for one in found for end in getattr(one, name)], log=use, margin=0.1)
        for name, use in (("x", log), ("y", False))
    )
    top, bottom = 26.0, 26.0 + _HEIGHT
    canvas = Canvas(caption, bottom + AXIS + 16)
    canvas.text(0, 12, f"↑ {axes[1]}", "tick", limit=80)
    canvas.across(x, top, bottom, left=LEFT)
    canvas.upwards(y, top, bottom)
    canvas.text(0.5, bottom + 32, f"{axes[0]} →", "tick", limit=80)

    def at(one: Dot) -> tuple[float, float]:
        return x.place(one.x[0], LEFT), bottom - y.place(one.y[0]) * _HEIGHT

    _draw_front(canvas, [at(one) for one in front(found, lower_is_better=lower_is_better)])
    for one in found:
        cx, cy = at(one)
        canvas.line(x.place(one.x[1], LEFT), cy, x.place(one.x[2], LEFT), cy, f"thin {one.kind}")
        low, high = (bottom - y.place(end) * _HEIGHT for end in one.y[1:])
        canvas.line(cx, low, cx, high, f"thin {one.kind}")
        canvas.dot(cx, cy, f"{one.kind}{' hollow' * one.hollow}", one.title, one.radius)
    if len(found) <= _NAMED_UP_TO:
        _write_names(canvas, [(one, *at(one)) for one in found])
    return Chart(caption, canvas.svg(), tuple(keys), note)


def front(found: Sequence[Dot], *, lower_is_better: bool = False) -> list[Dot]:
    """Return the things that no other one is better than in both figures, the fastest last."""
    sign = -1.0 if lower_is_better else 1.0
    best: list[Dot] = []
    for one in sorted(found, key=lambda d: (-d.x[0], -sign * d.y[0])):
        if not best or sign * one.y[0] > sign * best[-1].y[0]:
            best.append(one)
    return best[::-1]


def _write_names(canvas: Canvas, found: Sequence[tuple[Dot, float, float]]) -> None:
    """Write each name above its dot, or below it where another name would be in the way."""
    taken: list[tuple[float, float]] = []
    for one, x, y in found:
        above, below = y - one.radius - 5, y + one.radius + 15
        places = (above, below, above - 14, below + 14)
        place = next((p for p in places if not _in_the_way((x, p), taken)), above)
        taken.append((x, place))
        canvas.text(x, place, one.name, "halo", limit=24)


def _in_the_way(place: tuple[float, float], taken: Sequence[tuple[float, float]]) -> bool:
    return any(abs(place[0] - x) < 0.2 and abs(place[1] - y) < 13 for x, y in taken)


def _draw_front(canvas: Canvas, places: Sequence[tuple[float, float]]) -> None:
    """Draw the border of what can be had: never better than the next thing to the right."""
    for (x1, y1), (x2, y2) in pairwise(places):
        canvas.line(x1, y1, x1, y2, "rule")
        canvas.line(x1, y2, x2, y2, "rule")
