"""`irc report` turns a report into files."""

from __future__ import annotations

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
