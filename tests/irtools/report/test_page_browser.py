"""Pages of reports in a browser: what it says of them, with the network off."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irtools.driver.result import OptimizeResult
from irtools.report.document import Report
from irtools.report.entries import TriedEntry
from irtools.report.page import comparison_page, report_fragment, report_page

pytestmark = pytest.mark.browser

RESULTS = Path(__file__).resolve().parents[3] / "docs" / "results"
HOSTILE = "</script></style><img src=x onerror=alert(1)><b>" + "x" * 10_000
Pages = Mapping[str, Path]


@pytest.fixture(scope="module", name="result")
def _result(classify: Callable[..., OptimizeResult]) -> OptimizeResult:
    return classify(figures=("profile",))


@pytest.fixture(scope="module", name="pages")
def _pages(
    tmp_path_factory: pytest.TempPathFactory,
    make_report: Callable[..., Report],
    trials: tuple[TriedEntry, ...],
    result: OptimizeResult,
) -> Pages:
    """Every kind of page, and those of the stored reports."""
    report = make_report()
    document = report.to_dict()
    document["model"]["source"] = document["pipeline"] = document["next"][0] = HOSTILE
    document["rows"][1]["text"] = document["rows"][1]["notes"][0] = HOSTILE
    hostile = Report.from_dict(document)
    head = "<!doctype html><html lang=en><title>notebook</title><main>"
    texts = {
        "made": report_page(report),
        "run": report_page(result.report),
        "hostile": report_page(hostile),
        "tuned": report_page(make_report(tried=trials[:3], trials=trials[:16])),
        "two": comparison_page(report, result.report),
        "notebook": head + report_fragment(hostile),
    }
    for path in RESULTS.glob("*.json"):
        stored = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(stored, dict) and stored.get("format") == Report.FORMAT:
            texts[path.stem] = report_page(Report.from_dict(stored))
    folder = tmp_path_factory.mktemp("pages")
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in texts}


@contextmanager
def opened(chromium: Any, path: Path, width: int = 1400, **options: Any) -> Iterator[Any]:
    """Open a page without a network; fail on errors, messages and anything that it loads."""
    context = chromium.new_context(viewport={"width": width, "height": 900}, **options)
    context.route("**/*", lambda route: route.continue_() if _is_own(route) else route.abort())
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(f"dialog {dialog.message}"))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    yield page
    assert said == [] and asked == [path.as_uri()]
    context.close()


def _is_own(route: Any) -> bool:
    return bool(route.request.url.startswith("file:"))


def test_pages_have_no_serious_fault_in_both_themes_and_widths(chromium: Any, pages: Pages) -> None:
    from axe_playwright_python.sync_playwright import Axe

    assert len(pages) >= 6
    for name, path in pages.items():
        for theme in ("light", "dark"):
            for width in (400, 1400):
                with opened(chromium, path, width, color_scheme=theme) as page:
                    wide = page.evaluate("document.documentElement.scrollWidth")
                    assert wide <= width, f"{name} at {width} is {wide} wide"
                    found = Axe().run(page).response["violations"]
                serious = [
                    (one["id"], one["nodes"][0]["target"], one["nodes"][0].get("failureSummary"))
                    for one in found
                    if one["impact"] in ("serious", "critical")
                ]
                assert not serious, f"{name}, {theme}, {width}: {serious}"


def test_numbers_of_charts_and_tables_are_those_of_the_document(
    chromium: Any, pages: Pages, result: OptimizeResult
) -> None:
    document = json.loads(result.report.to_json())
    with opened(chromium, pages["run"]) as page:
        for row in document["rows"]:
            shown = page.locator("#passes table").first.locator("tr", has_text=row["text"]).first
            assert f"{row['figures']['metric']['value']:.4f}" in shown.inner_text()
        chart = page.locator("#passes figure", has_text="accuracy").locator("svg")
        places = chart.locator("circle").evaluate_all(
            "dots => dots.map(dot => dot.getBoundingClientRect().x)"
        )
        values = [row["figures"]["metric"]["value"] for row in document["rows"]]
        steps, shifts = np.diff(values), np.diff(places)
        assert np.array_equal(np.sign(steps.round(9)), np.sign(shifts.round(1)))
        titles = page.locator("#time svg title").all_text_contents()
        for op in document["rows"][-1]["figures"]["profile"]["ops"][:3]:
            assert f"{op['op']}, result: {op['ms']:.4g} ms" in titles
        flips = document["rows"][-1]["figures"]["decisions"]["flips"]
        caption = "Samples with another answer"
        found = page.locator("#samples table", has_text=caption).locator("tbody tr")
        assert found.count() == len(flips)
        assert "layer" in page.locator("#graph").inner_text()


def test_a_page_says_the_same_without_javascript(chromium: Any, pages: Pages) -> None:
    texts = {}
    for enabled in (True, False):
        with opened(chromium, pages["made"], java_script_enabled=enabled) as page:
            main = page.locator("main").inner_text()
            texts[enabled] = main.replace("Copy", "").split()
            assert page.locator("svg.chart").count() > 5
            assert page.locator("button:visible").count() == 0 or enabled
    assert texts[True] == texts[False]


def test_a_hostile_name_stays_text(chromium: Any, pages: Pages) -> None:
    for name in ("hostile", "notebook"):
        with opened(chromium, pages[name]) as page:
            assert page.locator("img").count() == 0 and page.locator("b").count() == 0
            assert "onerror=alert(1)" in page.locator("main").inner_text()


def test_what_scripts_add(chromium: Any, pages: Pages) -> None:
    with opened(chromium, pages["run"], color_scheme="light") as page:
        button = page.get_by_role("button", name="Theme")
        colours = [page.evaluate("getComputedStyle(document.documentElement).backgroundColor")]
        for _ in range(2):
            button.click()
            colours.append(
                page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
            )
        assert colours[0] == colours[1] != colours[2], "system, light, dark"
        table = page.locator("#time table[data-sortable]").last
        table.get_by_role("button", name="nodes").click()
        counts = [int(text) for text in table.locator("td:nth-child(2)").all_text_contents()]
        assert counts == sorted(counts, reverse=True)
        picker = page.locator("[data-picker]")
        picker.locator("input").first.check()
        line = picker.locator("[data-picked] code").inner_text()
        name = picker.locator("label span").first.inner_text()
        assert line.endswith(f"int8:min-size=0:exclude={name}'")


def test_a_page_prints_without_its_buttons(chromium: Any, pages: Pages) -> None:
    with opened(chromium, pages["made"], color_scheme="dark") as page:
        page.emulate_media(media="print")
        assert page.locator("button:visible").count() == 0
        background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert background == "rgb(255, 255, 255)"
        assert len(page.pdf()) > 10_000
