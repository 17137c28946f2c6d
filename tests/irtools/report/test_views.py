"""Markdown, JUnit, HTML and data frames of a report, and figures of plug-ins."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from xml.etree import ElementTree as Xml

import jsonschema
import numpy as np
import onnx_ir as ir
import pytest

from irtools import optimize
from irtools.driver.result import OptimizeResult
from irtools.driver.settings import Settings
from irtools.errors import OptionError, UnknownNameError, UnsupportedError, UsageError
from irtools.instruments.energy import EnergyMeter
from irtools.measure.energy import Zone, find_zones, why_no_zones
from irtools.measure.figures import Column, Figure, Occasion
from irtools.passmanager.step import Instrument, Step
from irtools.report.document import Report, schema
from irtools.report.frame import records
from irtools.report.junit import junit
from irtools.report.kinds import figure_kinds
from irtools.report.markdown import markdown
from irtools.report.page import report_fragment, report_page
from irtools.sources import LoadOptions
from irtools.targets import find_target


def _model(name: str = "w") -> ir.Model:
    x = ir.val("x", ir.DataType.FLOAT, ["batch", 8])
    weight = ir.val(name, const_value=ir.tensor(np.eye(8, dtype=np.float32), name=name))
    node = ir.node("MatMul", [x, weight])
    same = ir.node("Identity", [node.outputs[0]])
    same.outputs[0].name, same.outputs[0].dtype = "y", ir.DataType.FLOAT
    same.outputs[0].shape = ir.Shape(["batch", 8])
    graph = ir.Graph([x], [same.outputs[0]], nodes=[node, same], opset_imports={"": 20}, name="g")
    graph.register_initializer(weight)
    return ir.Model(graph, ir_version=10)


@pytest.fixture(scope="module", name="result")
def _result() -> OptimizeResult:
    found = optimize(_model(), "cleanup", bench=None, figures=("first-run",), threads=1)
    assert isinstance(found, OptimizeResult)
    return found


def test_first_run_is_measured_of_both_models(result: OptimizeResult) -> None:
    first, last = result.rows[0].first_run, result.rows[-1].first_run
    assert first.load_seconds > 0 and last.first_seconds > 0
    assert "first run" in str(result.report) and "first answer after" in str(result.report)
    document = result.report.to_dict()
    jsonschema.validate(document, schema())
    assert document["rows"][0]["figures"]["first_run"]["load_seconds"] == first.load_seconds
    assert Report.from_json(result.report.to_json()) == result.report


def test_an_unknown_figure_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"no figure 'enrgy'.*did you mean 'energy'"):
        optimize(_model(), "cleanup", figures=("enrgy",), bench=None)


def test_a_figure_from_outside_is_in_every_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """One class and its registration: nothing else is declared."""

    @dataclass(frozen=True)
    class Constants(Figure):
        key: ClassVar[str] = "constants"
        columns: ClassVar[tuple[Column, ...]] = (
            Column("constants", lambda figure, original: str(figure.count)),
        )
        count: int

        @classmethod
        def instrument(cls, occasion: Occasion) -> Instrument:
            return Count()

    class Count(Instrument):
        name: ClassVar[str] = "constants"

        def after(self, step: Step) -> None:
            step.figures.put(Constants(len(step.model.ir.graph.initializers)))

    kinds = (*figure_kinds(), Constants)
    for module in ("table", "entries", "document", "verdicts"):
        monkeypatch.setattr(f"irtools.report.{module}.figure_kinds", lambda: kinds)
    monkeypatch.setattr("irtools.driver.instruments.figure_kinds", lambda: kinds)
    report = optimize(_model(), "cleanup", bench=None, figures=("constants",)).report
    assert report.rows[1].constants.count == 1 and report.rows[0].constants is None
    for view in (str(report), markdown(report), report_page(report)):
        assert "constants" in view
    assert records(report)[1]["constants.count"] == 1
    jsonschema.validate(report.to_dict(), schema())
    assert "Constants" in schema()["$defs"]
    assert Report.from_json(report.to_json()) == report


def test_markdown_shows_names_as_they_are(result: OptimizeResult) -> None:
    text = markdown(result.report)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 4 and len({row.replace("\\|", "").count("|") for row in rows}) == 1
    assert "<details>" in text and "### `cleanup` on memory" in text
    hostile = _renamed(result.report, "<script>|`*x*`\x1b[31m")
    assert "<script>" not in markdown(hostile) and "\\|" in markdown(hostile)
    assert "\x1b" not in markdown(hostile)


def _renamed(report: Report, name: str) -> Report:
    document = report.to_dict()
    document["model"]["source"] = name
    return Report.from_dict(document)


def test_junit_has_a_case_for_each_pass(result: OptimizeResult) -> None:
    suite = Xml.fromstring(junit(_renamed(result.report, "a\x00<b>&.onnx")))
    assert suite.get("tests") == "1" and suite.get("failures") == "0"
    assert [case.get("name") for case in suite.iter("testcase")] == ["cleanup"]
    values = {one.get("name"): one.get("value") for one in suite.iter("property")}
    assert values["pipeline"] == "cleanup"


def test_a_notebook_shows_a_part_of_the_page(result: OptimizeResult) -> None:
    shown = result._repr_html_()
    assert shown == report_fragment(result.report) and "<script" not in shown
    assert "<b>" not in report_fragment(_renamed(result.report, "<b>&"))


def test_a_frame_is_of_pandas_else_of_polars(
    result: OptimizeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(UnsupportedError, match="pip install pandas"):
        result.to_frame()
    monkeypatch.setitem(sys.modules, "polars", SimpleNamespace(DataFrame=list))
    rows = result.to_frame()
    assert rows == records(result.report)
    assert [row["pass"] for row in rows] == ["original", "cleanup"]
    assert rows[0]["size.file_bytes"] > rows[1]["size.file_bytes"]
    assert len({tuple(row) for row in rows}) == 1


def _counters(root: Path, *readings: int) -> None:
    for number, reading in enumerate(readings):
        for folder in (f"intel-rapl:{number}", f"intel-rapl:{number}:0"):
            place = root / folder
            place.mkdir(exist_ok=True)
            (place / "max_energy_range_uj").write_text("1000000\n")
            (place / "energy_uj").write_text(f"{reading}\n")


def test_counters_of_packages_are_found_and_start_again(tmp_path: Path) -> None:
    assert why_no_zones(tmp_path) == f"this machine has no RAPL counters under {tmp_path}"
    _counters(tmp_path, 900_000, 5)
    first, second = find_zones(tmp_path)
    assert (first.read(), second.read()) == (900_000, 5)
    assert first.joules(900_000, 100_000) == pytest.approx(0.2)
    assert Zone("", 10**6).joules(1, 500_001) == pytest.approx(0.5)


def test_energy_is_that_of_one_inference(tmp_path: Path) -> None:
    _counters(tmp_path, 0)
    occasion: Any = SimpleNamespace()
    found = EnergyMeter(occasion, tmp_path).figure(
        [{"joules": 4.0, "runs": 8}, {"joules": 6.0, "runs": 10}, {"joules": 90.0, "runs": 9}]
    )
    assert (found.joules, found.watts, found.runs) == (0.6, 3.0, 27)


def test_without_counters_a_note_says_why(tmp_path: Path) -> None:
    occasion: Any = SimpleNamespace(target=find_target("ort-cpu"))
    meter = EnergyMeter(occasion, tmp_path)
    notes: list[str] = []
    step: Any = SimpleNamespace(figures=SimpleNamespace(notes=notes))
    meter.begin(step)
    meter.end(step)
    assert notes == [f"the energy is not measured: {why_no_zones(tmp_path)}"]


def test_settings_are_checked_printed_and_in_the_report(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    loading = LoadOptions(adapters=((tmp_path, 0.5),))
    settings = Settings(target="ort-cpu:isa=avx2", goals="max-drop=1%", loading=loading)
    assert str(settings).splitlines() == [
        "target: ort-cpu:isa=avx2",
        f"loading: adapters=(({tmp_path!r}, 0.5),)",
        "goals: max-drop=1%",
    ]
    entry = settings.entry()
    assert entry.target == "ort-cpu:isa=avx2" and entry.adapters[0].factor == 0.5
    before = entry.adapters[0].sha256
    (tmp_path / "adapter_config.json").write_text("{ }")
    assert settings.entry().adapters[0].sha256 != before
    with pytest.raises(OptionError, match="no setting 'goalz'; did you mean 'goals'"):
        settings.changed({"goalz": 0.1})
    with pytest.raises(UsageError, match="max-drop is 200%"):
        Settings(goals="max-drop=2")
