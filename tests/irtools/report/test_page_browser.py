"""Pages of reports in a browser: what it says of them, with the network off."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irtools.data import Dataset, thumbnail_of
from irtools.driver.result import OptimizeResult
from irtools.measure.contest import ContestResult
from irtools.measure.contest.base import Standing
from irtools.report.bench import bench_document
from irtools.report.document import Report
from irtools.report.entries import SampleEntry, TriedEntry
from irtools.report.page import (
    Listed,
    bench_page,
    comparison_page,
    many_page,
    report_fragment,
    report_page,
)

pytestmark = pytest.mark.browser

RESULTS = Path(__file__).resolve().parents[3] / "docs" / "results"
HOSTILE = "</script></style><img src=x onerror=alert(1)><b>" + "x" * 10_000
Pages = Mapping[str, Path]


def _format(path: Path) -> str | None:
    """Return the format that a stored result states; those of benchmarks state none."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return document.get("format") if isinstance(document, dict) else None


ALL_RESULTS = sorted(RESULTS.glob("*.json"))
STORED = [path for path in ALL_RESULTS if _format(path) == Report.FORMAT]


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
        "many": many_page("many", [Listed(name, report, "a.html") for name in ("a", HOSTILE)]),
        "bench": bench_page(_benchmark(report), "x.bench.json"),
        "samples": report_page(_with_pictures(result.report)),
        "notebook": head + report_fragment(hostile),
    }
    for path in STORED:
        texts[path.stem] = report_page(Report.from_json(path.read_text(encoding="utf-8")))
    folder = tmp_path_factory.mktemp("pages")
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in texts}


def _benchmark(report: Report) -> dict[str, Any]:
    timed = [row.latency.results[0] for row in report.rows[:2]]
    standings = [Standing(one.name, "ort-cpu", None, 10**6, (one,)) for one in timed]
    return bench_document(ContestResult(tuple(standings), notes=("a note",)))


def _with_pictures(report: Report) -> Report:
    """Give the samples that changed a picture each, and the first ones a text."""
    flips = report.rows[-1].decisions.flips
    pixels = np.random.default_rng(0).random((len(flips), 3, 96, 60), np.float32)
    pictures = Dataset({"x": pixels})
    shown = [
        SampleEntry(one.sample, f"text {HOSTILE}" if n < 3 else "", thumbnail_of(pictures, n))
        for n, one in enumerate(flips)
    ]
    return replace(report, samples=tuple(shown))


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

    assert len(pages) >= 9
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


@pytest.mark.parametrize("stored", ALL_RESULTS, ids=lambda path: path.stem)
def test_every_stored_result_is_a_page_or_of_a_benchmark(stored: Path) -> None:
    if stored in STORED:
        assert report_page(Report.from_json(stored.read_text(encoding="utf-8")))
        return
    assert _format(stored) is None, "neither a report nor what python -m benchmarks writes"


@pytest.mark.parametrize("name", ["run", *(path.stem for path in STORED)])
def test_marks_stand_where_the_numbers_of_the_document_are(
    chromium: Any, pages: Pages, result: OptimizeResult, name: str
) -> None:
    text = result.report.to_json() if name == "run" else (RESULTS / f"{name}.json").read_text()
    document = json.loads(text)
    first, last = (document["rows"][n]["figures"] for n in (0, -1))
    with opened(chromium, pages[name]) as page:
        sizes = [one["figures"]["size"]["file_bytes"] / 1e6 for one in document["rows"]]
        _same_bars(page, "Size on disk", sizes)
        times = {op["op"]: op["ms"] for op in last["profile"]["ops"]}
        before = {op["op"]: op["ms"] for op in first["profile"]["ops"]}
        pairs = sorted(
            ((before.get(op, 0.0), times.get(op, 0.0)) for op in {**before, **times}),
            key=lambda pair: -max(pair),
        )[:12]
        _same_bars(page, "By operator or kernel", [ms for pair in pairs for ms in pair])
        plans = [one for one in document["plans"] if any(d["cost"] > 0 for d in one["decisions"])]
        for plan in plans:
            costs = [one["cost"] for one in plan["decisions"] if one["cost"] > 0][:15]
            _same_bars(page, "predicted loss of each decision", costs)
        for row in document["rows"][1:]:
            for timed in row["figures"].get("latency", {}).get("results", [])[:1]:
                ratio = timed["speedup"]
                shown = f"{ratio['value']:.2f}x [{ratio['low']:.2f}, {ratio['high']:.2f}]"
                titles = page.locator("#passes svg title").all_text_contents()
                assert any(title.endswith(shown) for title in titles)


def _same_bars(page: Any, caption: str, numbers: Sequence[float]) -> None:
    """Check the bars of a chart: what each says, and that it is as long as its number is large."""
    bars = page.locator("figure", has_text=caption).first.locator("rect.bar")
    found = bars.evaluate_all(
        "bars => bars.map(bar => [bar.querySelector('title').textContent, "
        "parseFloat(bar.getAttribute('width'))])"
    )
    said = [float(re.search(r": ([-\d.e+]+)[^:]*$", title)[1]) for title, _ in found]  # type: ignore[index]
    assert said == pytest.approx([float(f"{number:.4g}") for number in numbers]), caption
    widths = np.array([width for _, width in found])
    largest = int(np.argmax(numbers))
    assert np.allclose(widths, widths[largest] * np.array(numbers) / numbers[largest], atol=0.02)


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
    for name, pictures in (("hostile", 0), ("notebook", 0), ("many", 0), ("samples", 24)):
        with opened(chromium, pages[name]) as page:
            assert page.locator("img").count() <= pictures and page.locator("b").count() == 0
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
