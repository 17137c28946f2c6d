"""Charts as SVG that needs no script: drawn here, so that they print and show without one.

Across, places are shares of the width: a chart is as wide as its page, and its letters are not
scaled. Every mark names its value in a title, which browsers show under the pointer.
"""

from __future__ import annotations

from irtools.pages.charts.bars import Bar, bars
from irtools.pages.charts.canvas import Chart
from irtools.pages.charts.intervals import Estimate, intervals
from irtools.pages.charts.layered import Box, layered
from irtools.pages.charts.lines import Series, lines
from irtools.pages.charts.scale import number_text
from irtools.pages.charts.scatter import Dot, scatter

__all__ = [
    "Bar",
    "Box",
    "Chart",
    "Dot",
    "Estimate",
    "Series",
    "bars",
    "intervals",
    "layered",
    "lines",
    "number_text",
    "scatter",
]
