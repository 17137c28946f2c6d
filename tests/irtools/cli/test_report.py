"""`irc report` turns a report into files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from irtools.report.document import Report
from irtools.report.markdown import markdown


def test_irc_report_writes_every_form(irc: Callable[..., Any], tmp_path: Path) -> None:
    source = tmp_path / "r.json"
    run = ("optimize", "model.onnx", "--passes", "cleanup", "--no-bench", "-o", "o.onnx")
    assert irc(*run, "--figures", "first-run", "--json", str(source)).code == 0
    report = Report.from_json(source.read_text())
    assert report.rows[-1].first_run.load_seconds > 0
    assert report.settings.figures == ("first_run",)
    assert irc("report", str(source)).out == str(report)
    for name in ("c.md", "j.xml", "p.html", "t.txt", "again.json"):
        assert irc("report", str(source), "-o", str(tmp_path / name)).code == 0
    assert (tmp_path / "again.json").read_text() == source.read_text()
    assert (tmp_path / "c.md").read_text() == markdown(report)
    again = irc("report", str(source), "-o", str(tmp_path / "c.md"))
    assert again.code == 2 and "exists: give another name with -o, or --force" in again.err
    assert irc("report", str(source), "-o", str(tmp_path / "c.pdf")).code == 2
    assert irc("report", str(tmp_path / "none.json")).code == 6
    (tmp_path / "bad.json").write_text("[]")
    bad = irc("report", str(tmp_path / "bad.json"))
    assert (
        bad.code == 3 and "is not a document of format 'irtools-report'" in bad.err and not bad.out
    )
    assert irc("report", "--schema").out.startswith("{")
    assert irc("report").code == 2


def test_two_reports_are_shown_against_each_other(irc: Callable[..., Any], tmp_path: Path) -> None:
    run = ("optimize", "model.onnx", "--no-bench", "--force", "-o", "o.onnx")
    run += ("--evaluate", "data.npz")
    assert irc(*run, "-p", "cleanup", "--json", "a.json").code == 0
    assert irc(*run, "-p", "int8", "--json", "b.json", "--html", "b.html").code == 0
    page = (tmp_path / "b.html").read_text()
    assert page.startswith("<!doctype html>") and "int8" in page
    assert irc("report", "b.json", "-o", "again.html").code == 0
    assert (tmp_path / "again.html").read_text() == page
    text = irc("report", "a.json", "b.json").out
    assert "B is better in size" in text.splitlines()[0]
    assert any(line.startswith("SQNR") and line.endswith(" A") for line in text.splitlines())
    assert irc("report", "a.json", "b.json", "-o", "both.html").code == 0
    assert "Two runs against each other" in (tmp_path / "both.html").read_text()
    refused = irc("report", "a.json", "b.json", "-o", "both.md")
    assert refused.code == 2 and "as html or table, not as markdown" in refused.err
    assert irc("report", "a.json", "b.json", "a.json").code == 2
    broken = (
        (tmp_path / "a.json").read_text().replace('"file_bytes": ', '"file_bytes": 1e400, "x": ')
    )
    (tmp_path / "broken.json").write_text(broken)
    assert irc("report", "broken.json", "-o", "broken.html").code == 3
    assert not (tmp_path / "broken.html").exists()
    missing = irc(*run, "-p", "cleanup", "--html", "none/page.html")
    assert missing.code == 6 and "there is no folder none" in missing.err


def test_a_folder_of_reports_and_a_benchmark_become_pages(
    irc: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    options = ("--no-bench", "--no-check", "--passes", "cleanup", "-o", "runs/m/")
    assert irc("optimize", "model.onnx", *options).code == 0
    shown = irc("report", "runs")
    assert shown.code == 0 and "m    model.onnx" in shown.out
    assert irc("report", "runs", "-o", "index.html").code == 0
    assert 'href="runs/m/report.html"' in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "| m | model.onnx |" in irc("report", "runs", "--format", "markdown").out
    document = {
        "format": "irtools-bench",
        "machine": {"cpu": "c", "isa": "vnni", "cores": 2, "quota": 2, "system": "s"},
        "contenders": [],
        "results": [],
    }
    (tmp_path / "x.json").write_text(json.dumps(document), encoding="utf-8")
    assert irc("report", "x.json", "-o", "x.html").code == 0
    assert "No two models were timed" in (tmp_path / "x.html").read_text(encoding="utf-8")
    (tmp_path / "cut.json").write_text('{"format": "irtools-bench", cut', encoding="utf-8")
    (tmp_path / "odd.json").write_text(json.dumps({**document, "contenders": 5}), encoding="utf-8")
    for wrong, said in (
        (("cut.json", "-o", "cut.html"), "irc: cut.json is not JSON: "),
        (("odd.json", "-o", "odd.html"), "irc: the benchmark odd.json does not follow its format"),
        (("runs", "--format", "junit"), "as html, markdown or table, not as junit"),
        (("runs", "--merge", "x.json"), "this is a folder"),
        (("x.json",), "is a benchmark, which is shown as html"),
        (("model.onnx",), "model.onnx"),
    ):
        found = irc("report", *wrong)
        assert found.code != 0 and said in found.err and found.err.count("\n") == 1
    assert not (tmp_path / "cut.html").exists() and not (tmp_path / "odd.html").exists()
