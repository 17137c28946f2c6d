"""Graphs in layers: readers below what they read, boxes apart, every edge drawn."""

from __future__ import annotations

import random
from itertools import combinations
from xml.etree import ElementTree as Xml

import pytest

from irtools.pages.charts import Box, layered


def _graph(nodes: int, seed: int) -> list[Box]:
    rng = random.Random(seed)
    return [
        Box(
            "Op",
            "",
            f"node {n}",
            "good",
            tuple({rng.randrange(n) for _ in range(rng.randint(0, 3))} if n else ()),
        )
        for n in range(nodes)
    ]


def _rects(svg: str) -> tuple[float, list[tuple[float, float, float, float]]]:
    root = Xml.fromstring(svg)
    wide = float(root.get("width", "0"))
    found = []
    for rect in root.iter("rect"):
        x, width = (float(rect.get(name, "").rstrip("%")) / 100 * wide for name in ("x", "width"))
        y, height = (float(rect.get(name, "")) for name in ("y", "height"))
        found.append((x, y, x + width, y + height))
    return wide, found


@pytest.mark.parametrize("seed", range(6))
def test_boxes_are_apart_and_readers_below(seed: int) -> None:
    boxes = _graph(40, seed)
    wide, rects = _rects(layered("graph", boxes).svg)
    assert len(rects) == 40
    for (x1, y1, x2, y2), (u1, v1, u2, v2) in combinations(rects, 2):
        assert x2 <= u1 or u2 <= x1 or y2 <= v1 or v2 <= y1
    assert all(x1 >= -0.1 and x2 <= wide + 0.1 for x1, _, x2, _ in rects)
    for number, box in enumerate(boxes):
        assert all(rects[other][3] < rects[number][1] for other in box.inputs)


def test_a_long_edge_passes_beside_the_boxes_between() -> None:
    chain = [Box("Op", "", "", "", (n - 1,) if n else ()) for n in range(6)]
    boxes = [*chain, Box("Add", "", "", "", (5, 0))]
    svg = layered("graph", boxes).svg
    wide, rects = _rects(svg)
    for line in Xml.fromstring(svg).iter("line"):
        x1, x2 = (float(line.get(name, "").rstrip("%")) / 100 * wide for name in ("x1", "x2"))
        y1, y2 = (float(line.get(name, "")) for name in ("y1", "y2"))
        for step in range(1, 10):
            x, y = x1 + (x2 - x1) * step / 10, y1 + (y2 - y1) * step / 10
            assert not any(a < x < c and b < y < d for a, b, c, d in rects)


def test_what_anybody_may_have_written_is_drawn_as_text() -> None:
    boxes = [Box("<b>", "&", "</svg>", "bad", (5, -1, 0)), Box("x" * 999, "", "", "", (0, 0))]
    svg = layered("<i>", boxes).svg
    root = Xml.fromstring(svg)
    assert next(text.text for text in root.iter("text")) == "− <b>" and not list(root.iter("b"))
    assert all(len(text.text or "") < 30 for text in root.iter("text"))
    assert layered("nothing", []).svg
