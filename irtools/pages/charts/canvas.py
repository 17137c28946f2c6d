"""Drawing: shapes at shares of the width and at pixels from the top."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree as Xml

from irtools.pages.charts.scale import Scale, number_text
from irtools.words import printable

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["AXIS", "LEFT", "Canvas", "Chart", "fitting"]

AXIS = 22
"""Pixels below the marks for the numbers of an axis."""
LEFT = 0.14
"""Share of the width that is left to the numbers of an axis upwards."""


_TELEPHONE_LETTERS = 56


@dataclass(frozen=True)
class Chart:
    """A drawing with its words.

    Attributes:
        caption: What it shows.
        svg: The drawing.
        keys: Classes of the style sheet, and what marks of that class are.
        note: What a reader must know of it.
        scrolls: It has a width of its own, and is shown in a frame that scrolls.
    """

    caption: str
    svg: Markup
    keys: tuple[tuple[str, str], ...] = ()
    note: str = ""
    scrolls: bool = False


class Canvas:
    """An SVG image of the full width, or of a width of its own.

    Text is set as text of the element tree, and so cannot become markup.

    Args:
        label: What a screen reader says; the numbers are in a table next to it.
        height: In pixels.
        width: In pixels; None: that of the page.
    """

    def __init__(self, label: str, height: float, width: float | None = None) -> None:
        self.height = height
        self._root = Xml.Element(
            "svg", {"class": "chart", "role": "img", "aria-label": printable(label)}
        )
        self._root.set("height", _pixels(height))
        if width is not None:
            self._root.set("class", "chart graph")
            self._root.set("width", _pixels(width))

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str, title: str = "") -> None:
        """Draw a line; `x` are shares of the width, `y` pixels."""
        at = {"x1": _share(x1), "y1": _pixels(y1), "x2": _share(x2), "y2": _pixels(y2)}
        self._add("line", at, kind, title)

    def dot(self, x: float, y: float, kind: str, title: str = "", radius: float = 5.0) -> None:
        """Draw a dot."""
        at = {"cx": _share(x), "cy": _pixels(y), "r": _pixels(radius)}
        self._add("circle", at, f"dot {kind}", title)

    def bar(self, x: float, y: float, width: float, height: float, kind: str, title: str) -> None:
        """Draw a bar from its left upper corner; widths are shares."""
        at = {"x": _share(x), "y": _pixels(y), "height": _pixels(height), "rx": "2"}
        self._add("rect", {**at, "width": _share(width)}, f"bar {kind}", title)

    def box(self, x: float, y: float, width: float, height: float, kind: str, title: str) -> None:
        """Draw a rectangle from its left upper corner; widths are shares."""
        at = {"x": _share(x), "y": _pixels(y), "height": _pixels(height), "rx": "5"}
        self._add("rect", {**at, "width": _share(width)}, kind, title)

    def centred(self, x: float, y: float, text: str, kind: str, limit: int) -> None:
        """Write text, centred wherever it is."""
        at = {"x": _share(x), "y": _pixels(y), "text-anchor": "middle"}
        self._add("text", at, kind, "").text = printable(text, limit)

    def text(self, x: float, y: float, text: str, kind: str = "", limit: int = 60) -> None:
        """Write text, centred; near the ends of the width it stays inside."""
        anchor = "start" if x < 0.04 else "end" if x > 0.96 else "middle"
        at = {"x": _share(x), "y": _pixels(y), "text-anchor": anchor}
        self._add("text", at, kind, "").text = printable(text, limit)

    def across(
        self, scale: Scale, top: float, bottom: float, unit: str = "", left: float = 0.0
    ) -> None:
        """Draw the grid and the numbers of an axis across, under `bottom`."""
        for number in scale.ticks():
            x = scale.place(number, left)
            self.line(x, top, x, bottom, "grid")
            self.text(x, bottom + 15, f"{number_text(number)}{unit}", "tick")

    def upwards(self, scale: Scale, top: float, bottom: float, unit: str = "") -> None:
        """Draw the grid and the numbers of an axis upwards, which stand on its lines."""
        for number in scale.ticks(5):
            y = bottom - scale.place(number) * (bottom - top)
            self.line(0, y, 1, y, "grid")
            self.text(0, y - 3, f"{number_text(number)}{unit}", "tick halo")

    def svg(self) -> Markup:
        """Return the drawing, to be put into a page."""
        from markupsafe import Markup

        return Markup(Xml.tostring(self._root, encoding="unicode"))

    def _add(self, tag: str, at: dict[str, str], kind: str, title: str) -> Xml.Element:
        found = Xml.SubElement(self._root, tag, at)
        if kind:
            found.set("class", kind)
        if title:
            Xml.SubElement(found, "title").text = printable(title, 300)
        return found


def fitting(shown: str, most: int = 46) -> int:
    """Return how many letters a name may have next to its figure, on a telephone as well."""
    return max(12, min(most, _TELEPHONE_LETTERS - len(shown)))


def _share(share: float) -> str:
    return f"{100 * share:.2f}%"


def _pixels(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
