"""Pages: what is escaped, what the policy allows, and where charts put numbers."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree as Xml

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import DictLoader, UndefinedError

from irtools.pages.blocks import Commands, Lead, Section, Table
from irtools.pages.charts import Bar, Dot, Estimate, Series, bars, intervals, lines, scatter
from irtools.pages.charts.scale import Scale, number_text
from irtools.pages.engine import page, templates
from irtools.pages.policy import content_policy

_PAGE = (
    '{% extends "base.html" %}{% import "blocks.html" as blocks with context %}'
    "{% block title %}{{ name }}{% endblock %}{% block main %}{{ blocks.sections(found) }}"
    "{% endblock %}"
)
_HOSTILE = "</script></style><b onclick='x()'>\"&\x1b[31m\u202eabc"


class _Reader(HTMLParser):
    """Collects tags, and the texts of styles and scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.inline: dict[str, list[str]] = {"style": [], "script": []}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_endtag(self, tag: str) -> None:
        self.tags.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] in self.inline:
            self.inline[self.tags[-1]].append(data)


@pytest.fixture(name="made")
def _made(monkeypatch: pytest.MonkeyPatch) -> str:
    """A page of which every text is hostile."""
    shared = templates("irtools.pages")
    monkeypatch.setattr(shared.loader, "loaders", [*shared.loader.loaders, _loader()])  # type: ignore[union-attr]
    section = Section(
        "a",
        _HOSTILE,
        (
            Lead(_HOSTILE),
            Table(_HOSTILE, (_HOSTILE,), ((_HOSTILE,),)),
            Commands("", (("", _HOSTILE),)),
        ),
    )
    return page("test.html", "irtools.pages", name=_HOSTILE, found=[section])


def _loader() -> DictLoader:
    return DictLoader({"test.html": _PAGE})


def test_hostile_text_stays_text(made: str) -> None:
    found = _Reader(made)
    assert "b" not in found.tags and not any(name.startswith("on") for name in found.attributes)
    assert "style" not in found.attributes, "the policy allows no style attribute"
    assert "\x1b" not in made and "\u202e" not in made and "\\x1b[31m" in made
    assert made.count("&lt;/script&gt;") >= 6


def test_the_policy_allows_the_texts_of_the_page_and_nothing_else(made: str) -> None:
    found = _Reader(made)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', made)
    assert policy is not None
    for kind, texts in found.inline.items():
        assert texts
        hashes = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in texts]
        allowed = " ".join(f"'sha256-{one}'" for one in hashes)
        assert f"{kind}-src {allowed};" in policy[1]
    assert "unsafe" not in policy[1] and policy[1].startswith("default-src 'none'")
    assert not re.search(r"(?:src|href)=\"?(?:https?:)?//", made), "nothing is loaded"


def test_a_policy_takes_further_directives() -> None:
    assert "connect-src 'self'" in content_policy((), (), connect_src="'self'")
    assert "script-src 'none'" in content_policy((), ())


def test_a_name_that_is_not_given_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="nonesuch"):
        templates("irtools.pages").from_string("{{ nonesuch }}").render()


@given(st.floats(1e-9, 1e9), st.floats(1e-6, 1e9), st.booleans())
def test_an_axis_has_round_numbers_on_it(low: float, width: float, log: bool) -> None:
    scale = Scale.of([low, low + width], log=log)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 7 and ticks == sorted(ticks)
    places = [scale.place(tick) for tick in ticks]
    assert all(0 <= place <= 1 for place in places)
    assert all(a <= b for a, b in pairwise(places))
    assert 0 < scale.place(low) < 1


def test_an_axis_of_one_number_or_none_is_an_axis() -> None:
    for numbers in ([], [3.0], [0.0], [float("inf")], [-2.0, -2.0]):
        for log in (False, True):
            assert Scale.of(numbers, log=log).ticks()


def test_numbers_have_four_digits() -> None:
    assert [number_text(n) for n in (0, 0.01234, 3.14159, 12300.0)] == [
        "0",
        "0.01234",
        "3.142",
        "12,300",
    ]


def test_an_interval_lies_where_its_numbers_are() -> None:
    chart = intervals(
        "x", [Estimate("a", "2x", 2.0, 1.0, 3.0), Estimate("<b>", "1x", 1.0, 1.0, 1.0)]
    )
    root = Xml.fromstring(chart.svg)
    dots = [float(dot.get("cx", "").rstrip("%")) for dot in root.iter("circle")]
    ends = [line for line in root.iter("line") if (line.get("class") or "").startswith("line")]
    x1, x2 = (float(ends[0].get(name, "").rstrip("%")) for name in ("x1", "x2"))
    assert dots[1] == x1 and dots[0] == pytest.approx((x1 + x2) / 2, abs=0.02)
    assert [title.text for title in root.iter("title")][1:] == ["a: 2x", "<b>: 1x"]


def test_bars_are_as_long_as_their_numbers() -> None:
    keys = (("before", "original"), ("after", "result"))
    root = Xml.fromstring(bars("x", [Bar("op", "4 → 1", (4.0, 1.0))], keys, unit=" ms").svg)
    first, second = (float(bar.get("width", "").rstrip("%")) for bar in root.iter("rect"))
    assert first == pytest.approx(4 * second, rel=0.01)
    assert [title.text for title in root.iter("title")] == [
        "op, original: 4 ms",
        "op, result: 1 ms",
    ]


def test_a_line_leaves_out_what_is_missing() -> None:
    series = Series("after", "result", (1.0, None, 3.0), ("one", "", "three"))
    root = Xml.fromstring(lines("x", [series]).svg)
    assert [title.text for title in root.iter("title")] == ["one", "three"]


def test_the_front_is_what_nothing_is_better_than() -> None:
    places = {"fast": (3.0, 0.9), "good": (1.0, 0.99), "worse": (2.0, 0.89), "mid": (2.0, 0.95)}
    dots = [Dot(name, name, (x, x, x), (y, y, y)) for name, (x, y) in places.items()]
    root = Xml.fromstring(scatter("x", dots, ("speed", "quality")).svg)
    assert len(list(root.iter("circle"))) == 4
    steps = [line for line in root.iter("line") if line.get("class") == "rule"]
    assert len(steps) == 4, "two steps of two lines between good, mid and fast"


@pytest.mark.parametrize("numbers", [(1.0, 1.0), (1.0, 1.0 + 1e-12), (0.0,), (-3e9, -3e9)])
def test_ticks_of_equal_numbers_differ(numbers: tuple[float, ...]) -> None:
    ticks = [number_text(tick) for tick in Scale.of(numbers).ticks()]
    assert ticks and len(set(ticks)) == len(ticks)
