"""The page of a report: its sections, its numbers, and what hostile documents do to it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any
from xml.etree import ElementTree as Xml

import pytest

from irtools.errors import DataError
from irtools.report.document import Report
from irtools.report.entries import TriedEntry
from irtools.report.page import comparison_page, report_fragment, report_page

Make = Callable[..., Report]


def _section(page: str, key: str) -> str:
    found = re.search(rf'<section id="{key}".*?</section>', page, re.DOTALL)
    assert found is not None, f"no section {key}"
    return found[0]


def _titles(text: str) -> list[str]:
    """Return what the marks of the charts in a text say."""
    charts = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    return [title.text or "" for chart in charts for title in Xml.fromstring(chart).iter("title")]


def _text(text: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", text)).split())


def test_a_page_says_what_the_report_says(make_report: Make) -> None:
    report = make_report()
    page = report_page(report)
    verdict = _text(_section(page, "verdict"))
    assert "3.01x faster [2.86, 3.16], 3.97x smaller, first answer after" in verdict
    assert "All goals kept." in verdict and "Kept max-drop=1%" in verdict
    assert "irc optimize r8.onnx --fix sequence=64" in verdict, "what to try next"
    assert "If int8 loses too much: calibrator=entropy, which cuts more" in verdict
    passes = _section(page, "passes")
    assert any("(0 of 7 kept): 3.01x" in title for title in _titles(passes))
    assert 'class="dot after hollow"' in passes, "what was rolled back is hollow"
    assert "accuracy on 2189 samples" in _text(passes) and "a note of original" in _text(passes)
    assert len(page.encode()) < 200_000 and report_page(report) == page


def test_charts_show_the_numbers_of_the_document(make_report: Make) -> None:
    report = make_report()
    page = report_page(report)
    document = json.loads(report.to_json())
    timed = document["rows"][1]["figures"]["latency"]["results"][0]
    ratio = timed["speedup"]
    assert (
        f"int8:calibrator=mse: {ratio['value']:.2f}x [{ratio['low']:.2f}, {ratio['high']:.2f}]"
        in _titles(_section(page, "passes"))
    )
    rounds = [title for title in _titles(_section(page, "speed")) if "round" in title]
    last = document["rows"][2]["figures"]["latency"]["results"][0]["block_medians_ms"]
    assert rounds[4:] == [f"result, round {n}: {ms:.3f} ms" for n, ms in enumerate(last, 1)]
    assert "loading and compiling, result: 0.06 s" in _titles(_section(page, "speed"))
    accuracy = _section(page, "accuracy")
    assert _titles(accuracy) == [
        "layer.a, MatMul: equal",
        "layer.b, MatMul: 41.5 dB",
        "layer.logits_in, MatMul: 38.0 dB",
    ]
    assert "the largest fall, at layer.b (MatMul)" in _text(accuracy)


def test_the_document_can_be_downloaded_without_a_script(make_report: Make) -> None:
    report = make_report()
    found = re.search(r'href="data:application/json;base64,([^"]*)"', report_page(report))
    assert found is not None
    assert base64.b64decode(found[1]).decode() == report.to_json()
    document = report.to_dict()
    document["rows"][0]["counters"] = {f"num-{n:0200}": 1 for n in range(6000)}
    large = report_page(Report.from_dict(document))
    assert len(large.encode()) < 1_500_000 and "Download report.json" not in large


def test_names_of_any_length_stay_text(make_report: Make) -> None:
    hostile = "</script><b>" + "\x1b\u2028" * 5000
    document = make_report().to_dict()
    document["model"]["source"] = document["pipeline"] = hostile
    document["rows"][1]["text"] = document["rows"][1]["notes"][0] = hostile
    document["versions"] = {hostile: hostile}
    document["goals"][0]["goal"] = document["next"][0] = document["command"] = hostile
    report = Report.from_dict(document)
    for page in (report_page(report), report_fragment(report), comparison_page(report, report)):
        assert "<b>" not in page and "\x1b" not in page and "\u2028" not in page
        assert len(page) < 1_500_000


@pytest.mark.parametrize("number", ["inf", "-inf", "nan", 1e308, -1e308, 0, 10**400])
def test_any_number_is_a_page_or_one_line(make_report: Make, number: Any) -> None:
    document = make_report().to_dict()
    for place in _numbers(document):
        for key in [key for key, value in place.items() if isinstance(value, float)]:
            place[key] = number
    for row in document["rows"]:
        row["figures"]["size"]["file_bytes"] = number if isinstance(number, int) else 1
    for make in (report_page, lambda one: comparison_page(one, make_report())):
        try:
            page = make(Report.from_dict(document))
        except DataError as error:
            assert "\n" not in str(error)
        else:
            assert "verdict" in page and "nan%" not in page and "inf%" not in page


def _numbers(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        yield part
    for item in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _numbers(item)


def test_a_report_without_figures_is_a_page(make_report: Make) -> None:
    document = make_report(goals=(), next=(), command="", verdicts=(), bench=None).to_dict()
    for row in document["rows"]:
        row["figures"] = {"carbon": {"grams": 1.5}}
    page = report_page(Report.from_dict(document))
    assert "Nothing to warn of." in page
    for key in ("verdict", "tradeoff", "speed", "time", "accuracy", "samples", "graph"):
        assert '<p class="hint">' in _section(page, key), f"{key} does not say what would fill it"
    document["rows"] = document["rows"][:1]
    assert "No pass changed the model." in report_page(Report.from_dict(document))


def test_the_trade_off_has_every_trial(make_report: Make, trials: tuple[TriedEntry, ...]) -> None:
    front = tuple(one for one in trials if one.name in ("trial 0", "trial 3", "trial 59"))
    page = _section(report_page(make_report(tried=front, trials=trials)), "tradeoff")
    finished = [one for one in trials if one.figures]
    marks = [title for title in _titles(page) if " across, " in title]
    assert len(marks) == len(finished) + 1, "and the original"
    speed, loss = (finished[1].figures[name].value for name in ("speedup", "loss:accuracy"))
    assert any(
        m.startswith(f"trial 1: {speed:.3g} across, {100 * loss:.4g} upwards") for m in marks
    )
    assert "All 60 trials" in page and page.count("max-drop=1% is not kept") == 8
    assert page.count("exclude=layer.59") == 2, "in both tables"


def test_two_reports_against_each_other(make_report: Make) -> None:
    first = make_report()
    document = first.to_dict()
    row = document["rows"][2]["figures"]
    row["latency"]["results"][0]["speedup"] = {"value": 4.0, "low": 3.9, "high": 4.1}
    row["size"]["file_bytes"] = 46_000_000
    document["machine"]["cpu"] = "Other CPU"
    page = comparison_page(first, Report.from_dict(document), ("a.json", "b.json"))
    text = _text(page)
    assert "A is better in size." in text and "the runs were on different machines" in text
    assert "4.00x [3.90x, 4.10x] not comparable" in text
    assert "CPU CPU Other CPU" in _text(_section(page, "inputs"))
    document["machine"] = first.to_dict()["machine"]
    again = _text(comparison_page(first, Report.from_dict(document)))
    assert "A is better in size; B is better in times faster than its original" in again
    same = _text(comparison_page(first, first))
    assert "No figure of the results differs." in same and "Nothing: the same models" in same
