"""Many runs on one page, and the page of a benchmark."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest

from irtools.errors import DataError, FileError
from irtools.instruments import Latency
from irtools.measure.base import LatencyResult, Ratio
from irtools.measure.contest import ContestResult
from irtools.measure.contest.base import Standing
from irtools.metrics import Difference, Evaluation
from irtools.report.bench import bench_document
from irtools.report.document import Report
from irtools.report.entries import GoalEntry, ModelEntry, TargetEntry
from irtools.report.folder import listed_below
from irtools.report.page import Listed, bench_page, many_cells, many_page

Make = Callable[..., Report]
_HOSTILE = "</script><img src=x onerror=alert(1)><b>"


def _titles(page: str) -> list[str]:
    charts = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    return [title.text or "" for chart in charts for title in Xml.fromstring(chart).iter("title")]


def _text(page: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())


def _release(make_report: Make) -> list[Listed]:
    """Two models, two pipelines, two targets; one build lacks its page, one its goal."""
    found = []
    for model in ("a", "b"):
        for passes in ("O2", "int8"):
            for target in ("ort", "openvino"):
                name = f"{model}/{passes}/{target}"
                report = make_report(
                    model=ModelEntry(f"{model}.onnx", model * 64, 305, 20),
                    pipeline=passes,
                    target=TargetEntry(target, "vnni", "1"),
                )
                found.append(Listed(name, report, f"{name}/report.html"))
    broken = (GoalEntry("max-drop=1%", "2 points", False),)
    found[3] = replace(found[3], link="", report=make_report(goals=broken, pipeline="int8"))
    return found


def test_a_release_is_one_table_with_a_link_to_each_page(make_report: Make) -> None:
    found = _release(make_report)
    page = many_page("topics", found, (("README.md", "the model card"),))
    assert "8 runs: 3 models, 2 pipelines, 3 targets" in _text(page)
    assert re.findall(r'<td><a href="([^"]*)">', page) == [one.link for one in found if one.link]
    assert "1 of 8 do not keep their goals: a/int8/openvino." in _text(page)
    assert "1 run without a page next to the report" in _text(page)
    assert "README.md the model card" in _text(page)
    cells = many_cells(found)
    assert cells.headings[:6] == ("run", "model", "passes", "target", "goals", "latency")
    row = dict(zip(cells.headings, cells.rows[0], strict=True))
    figures = found[0].report.rows[-1].figures
    assert row["accuracy"].startswith(f"{figures['metric'].value:.4f} [")
    assert row["times faster than its original"] == "3.01x [2.86x, 3.16x]"
    assert cells.rows[3][4] == "not kept: max-drop=1%"
    assert "a/O2/ort: 3.01x [2.86x, 3.16x]" in _titles(page)
    assert page.count("Quality against speed") == 4, "a chart and its label, of each of two models"


def _decoder(make_report: Make, speed: float) -> Report:
    """A run of a decoder: prompts at one speed, the tokens after them at twice that."""

    def timed(phase: Any, ratio: float) -> LatencyResult:
        speedup = Ratio(ratio, 0.9 * ratio, 1.1 * ratio)
        times = (10 / ratio, 12.0, 14.0, 500.0, 10**7, 0.1, 9, (2.0,))
        return LatencyResult("m", f"{phase} 64", *times, speedup, phase=phase)

    first, *_, last = make_report().rows
    latency = Latency((timed("prefill", speed), timed("decode", 2 * speed)))
    return make_report(rows=(first, replace(last, figures={**last.figures, "latency": latency})))


def test_phases_of_a_decoder_are_speeds_and_not_its_metric(make_report: Make) -> None:
    found = [Listed(f"m/{speed}", _decoder(make_report, speed)) for speed in (1.5, 2.0)]
    cells = many_cells(found)
    row = dict(zip(cells.headings, cells.rows[0], strict=True))
    assert row["latency"] == "6.67 ms (prefill), 3.33 ms (decode)"
    speed = "times faster than its original"
    assert row[f"{speed} (decode)"] == "3.00x [2.70x, 3.30x]"
    page = many_page("decoders", found)
    for phase in ("prefill", "decode"):
        assert f"Times faster than its original ({phase})" in page
    titles = _titles(page)
    accuracy = row["accuracy"]
    assert f"m/1.5: 1.50x [1.35x, 1.65x] across, {accuracy} upwards" in titles
    assert f"m/1.5: 3.00x [2.70x, 3.30x] across, {accuracy} upwards" in titles
    assert f"m/1.5: {accuracy}" in titles, "the metric has a chart of its own"


def test_what_is_not_measured_has_no_column(make_report: Make) -> None:
    document = make_report(goals=()).to_dict()
    for row in document["rows"]:
        row["figures"] = {}
    listed = Listed("x", Report.from_dict(document))
    assert many_cells([listed]).headings == ("run", "model", "passes", "target")
    assert "1 result, without goals to judge them by." in _text(many_page("x", [listed]))


def test_names_stay_text(make_report: Make) -> None:
    report = make_report(pipeline=_HOSTILE, model=ModelEntry(_HOSTILE, "0" * 64, 1, 20))
    page = many_page(_HOSTILE, [Listed(_HOSTILE, report, "a.html")] * 2)
    assert "<img" not in page and "<b>" not in page


def _write(path: Path, report: Report, *, page: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report.to_json(), encoding="utf-8")
    if page:
        path.with_suffix(".html").write_text("a page", encoding="utf-8")


def test_reports_of_a_folder_are_found_with_links(tmp_path: Path, make_report: Make) -> None:
    report = make_report()
    runs = tmp_path / "runs"
    _write(runs / "m" / "O2 #1" / "report.json", report, page=True)
    _write(runs / "small.report.json", report)
    _write(runs / ".hidden" / "report.json", report)
    (runs / "other.json").write_text('{"format": "irtools-sweep"}', encoding="utf-8")
    found = listed_below(runs, tmp_path)
    assert [(one.name, one.link) for one in found] == [
        ("m/O2 #1", "runs/m/O2%20%231/report.html"),
        ("small", ""),
    ]
    with pytest.raises(FileError, match="holds no report"):
        listed_below(runs / "m" / "O2 #1" / "none", tmp_path)
    (runs / "old.json").write_text('{"format": "irtools-report", "version": 1}', encoding="utf-8")
    with pytest.raises(DataError, match=r"old\.json: the report"):
        listed_below(runs, tmp_path)


def _bench() -> dict[str, Any]:
    def timed(name: str, median: float, ratio: Ratio | None) -> LatencyResult:
        blocks = (median, median)
        shape = "batch=1 sequence=64"
        rest = (2 * median, 3 * median, 1e3 / median, 10**8, 0.2, 90, blocks, ratio)
        return LatencyResult(name, shape, median, *rest)

    first = Standing("a.onnx", "ort-cpu", None, 90_000_000, (timed("a.onnx", 14.0, None),))
    second = Standing(
        _HOSTILE,
        "openvino-cpu",
        "f32",
        23_000_000,
        (timed(_HOSTILE, 4.5, Ratio(3.11, 2.9, 3.3)),),
        evaluation=Evaluation("accuracy", 0.9762, 0.97, 0.98, 2189),
        difference=Difference(-0.0014, -0.004, 0.001),
    )
    return bench_document(ContestResult((first, second), notes=("a note",)))


def test_a_benchmark_is_a_page() -> None:
    document = _bench()
    page = bench_page(document, "x.bench.json")
    text = _text(page)
    assert "is 3.11 [2.90, 3.30] times as fast as a.onnx at batch=1 sequence=64." in text
    assert "accuracy 0.9762 [0.9700, 0.9800] -0.0014 [-0.0040, +0.0010]" in text
    assert "a note" in text and "<img" not in page
    result = document["results"][0]
    assert f"a.onnx, p99: {result['p99_ms']:.4g} ms" in _titles(page)
    document["results"][1]["speedup"] = {"value": 1.0, "low": 0.9, "high": 1.1}
    assert "Nothing is faster than a.onnx beyond noise" in _text(bench_page(document, "x"))
    alone = {**document, "results": document["results"][:1]}
    assert "No two models were timed" in _text(bench_page(alone, "x"))
    assert "No two models were timed" in _text(bench_page({**alone, "results": []}, "x"))


@pytest.mark.parametrize("change", [{"format": "other"}, {"results": [{"name": 1}]}])
def test_what_is_not_a_benchmark_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="benchmark"):
        bench_page({**_bench(), **change}, "x")
