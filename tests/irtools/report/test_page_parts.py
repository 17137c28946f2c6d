"""What a run puts into its document for the page: decisions, modules, plans, profiles."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jsonschema
import numpy as np
import onnx_ir as ir
import pytest

from irtools.analysis.modules import module_sizes
from irtools.data import Dataset, TextRows, thumbnail_of
from irtools.driver.result import OptimizeResult
from irtools.driver.settings import Settings
from irtools.driver.shown import sample_entries
from irtools.instruments import Decisions, Flip, LayerCost, Sensitivity
from irtools.instruments.profile import ProfileTimes
from irtools.report.document import Report, schema
from irtools.report.entries import ModuleEntry, SampleEntry
from irtools.report.frame import records
from irtools.report.page import report_page


@pytest.fixture(scope="module", name="result")
def _result(classify: Callable[..., OptimizeResult]) -> OptimizeResult:
    return classify()


def test_the_document_holds_what_the_page_shows(result: OptimizeResult) -> None:
    report = result.report
    document = json.loads(report.to_json())
    jsonschema.validate(document, schema())
    assert Report.from_json(report.to_json()) == report
    found = document["rows"][-1]["figures"]["decisions"]
    before, after = (row["figures"]["metric"]["value"] for row in document["rows"][::2])
    assert found["samples"] == 400
    assert found["mended"] - found["spoilt"] == round(400 * (after - before))
    assert sum(one["support"] for one in found["classes"]) == 400
    changed = found["spoilt"] + found["mended"] + found["swapped"]
    assert len(found["flips"]) == changed > 0
    (plan,) = document["plans"]
    assert plan["row"] == 2 and {one["subject"] for one in plan["decisions"]} >= {
        "layer.0.up",
        "layer.1.down",
    }
    costs = [one["cost"] for one in plan["decisions"]]
    assert costs == sorted(costs, reverse=True)
    modules = {one["name"]: one for one in document["modules"]}
    assert modules["layer.0.up"]["types"][0] == ["float32"]
    assert not any("decisions" in name for row in records(report) for name in row)


def test_the_page_shows_decisions_modules_and_a_picker(result: OptimizeResult) -> None:
    page = report_page(result.report)
    for key in ("samples", "accuracy", "graph"):
        assert f'<section id="{key}"' in page
    assert 'data-before="irc optimize memory --passes &#39;cleanup,int8:min-size=0:exclude=' in page
    assert "--figures profile adds" in page


def test_answers_are_compared_class_by_class() -> None:
    rows = np.array([5, 3, 9, 1])
    before = np.array([[0, 0], [1, 1], [1, 0], [2, 0]])
    after = np.array([[0, 1], [1, 1], [1, 1], [2, 1]])
    found = Decisions.compare(rows, before, after)
    assert (found.samples, found.spoilt, found.mended, found.swapped) == (4, 1, 1, 1)
    assert found.flips == (Flip(5, 0, 0, 1), Flip(9, 1, 0, 1), Flip(1, 2, 0, 1))
    zero, two, one = found.classes
    assert (zero.label, zero.right_before, zero.right_after, zero.f1_after) == (0, 1, 0, 0.0)
    assert zero.f1_before == pytest.approx(0.5) and two.f1_before == two.f1_after == 0
    assert one.support == 2 and one.f1_after == pytest.approx(2 * 2 / (2 + 4))


def test_a_weight_of_several_modules_counts_once() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[N,2] x) => (float[N,2] y) '
        "<float[2,2] w = {1,2,3,4}> { h = MatMul(x, w)  y = MatMul(h, w) }"
    )
    for node, module in zip(model.graph, ("a.b", "a.c"), strict=True):
        node.name = f"{module}/MatMul"
    found = module_sizes(model)
    assert [(name, size.nodes, size.bytes) for name, size in found.items()] == [
        ("a.b", 1, 16),
        ("a.c", 1, 0),
    ]


def test_modules_that_are_alike_are_shown_once(make_report: Callable[..., Report]) -> None:
    entries = tuple(
        ModuleEntry(f"layer.{n}.{part}", (2, 1), (64, 16), (("float32",), ("int8",)))
        for n in range(12)
        for part in ("up", "down")
    )
    last = ModuleEntry("layer.12.up", (2, 2), (64, 64), (("float32",), ("float32",)))
    other = ModuleEntry("layer.11.down", (2, 2), (64, 64), (("float32",), ("float32",)))
    page = report_page(make_report(modules=(*entries[:-1], other, last)))
    assert "0–11 (each)" in page and page.count(">up<") == page.count(">down<") + 1 == 2
    assert "float32 → int8" in page and "2 → 1–2" in page and "64 B → 16 B–64 B" in page
    deep = ModuleEntry(".".join("a" * 900), (1, 1), (0, 0), ((), ()))
    assert '<section id="graph"' in report_page(make_report(modules=(deep,)))


def test_a_profile_is_that_of_the_round_in_the_middle() -> None:
    occasion: Any = SimpleNamespace()
    times = ProfileTimes(occasion)
    rounds = [
        {
            "names": ["a", "b", "c"],
            "ops": ["MatMul", "Relu", "MatMul"],
            "microseconds": np.array([[slow * 1000.0, 500.0, 2000.0]]),
            "totals": np.array([slow * 1000.0 + 2500.0]),
        }
        for slow in (9, 1, 3)
    ]
    found = times.figure(rounds)
    assert found.run_ms == 5.5
    assert [(op.op, op.nodes, op.ms) for op in found.ops] == [("MatMul", 2, 5.0), ("Relu", 1, 0.5)]
    assert [node.node for node in found.nodes] == ["a", "c", "b"]
    assert found.modules[0].ops == ("MatMul", "Relu")


def _with_samples(result: OptimizeResult, **changes: Any) -> Report:
    flips = result.report.rows[-1].decisions.flips
    document = result.report.to_dict()
    document["samples"] = [{"sample": flips[0].sample, **changes}]
    return Report.from_dict(document)


def test_a_sample_is_shown_as_text_or_picture(result: OptimizeResult) -> None:
    sample = result.report.rows[-1].decisions.flips[0].sample
    page = report_page(_with_samples(result, text="<b>good</b> film"))
    assert '<th scope="col" class="text">text</th>' in page
    assert "&lt;b&gt;good&lt;/b&gt; film" in page and "<img" not in page
    pixels = np.arange(64, dtype=np.uint8).reshape(1, 1, 8, 8)
    png = thumbnail_of(Dataset({"x": pixels}), 0)
    page = report_page(_with_samples(result, thumbnail=png))
    assert f'<img src="data:image/png;base64,{png}" alt="Sample {sample}">' in page
    assert (
        Report.from_json(_with_samples(result, thumbnail=png).to_json()).samples[0].thumbnail == png
    )


@pytest.mark.parametrize("text", ["PHN2Zz4=", '"><script>', "iVBORw0KGgo=\n", "x" * 9])
def test_what_is_not_a_png_is_not_shown(result: OptimizeResult, text: str) -> None:
    page = report_page(_with_samples(result, thumbnail=text))
    assert "<img" not in page and "<script>x" not in page and '"><script>' not in page


def test_arrays_without_texts_or_pictures_show_numbers_alone(result: OptimizeResult) -> None:
    assert result.report.samples == ()


def _shown_of(data: Dataset, result: OptimizeResult, **settings: Any) -> tuple[SampleEntry, ...]:
    return sample_entries(result.report.rows, data, Settings(bench=None, **settings))


def test_samples_are_kept_out_of_the_report_on_request(result: OptimizeResult) -> None:
    rows = tuple((f"text {n}",) for n in range(400))
    texts = TextRows(rows, None, lambda rows, files: {})
    data = Dataset({"x": np.zeros((400, 16), np.float32)}, texts=texts)
    flips = result.report.rows[-1].decisions.flips
    assert [one.text for one in _shown_of(data, result)] == [f"text {f.sample}" for f in flips[:60]]
    assert _shown_of(data, result, show_samples=False) == ()
    pictures = Dataset({"x": np.random.default_rng(0).random((400, 3, 200, 90), np.float32)})
    found = _shown_of(pictures, result)
    assert 0 < len(found) <= 24 and sum(len(one.thumbnail) for one in found) < 24 * 8000
    hidden = report_page(replace(result.report, settings=Settings(show_samples=False).entry()))
    assert "--hide-samples kept texts" in hidden


def test_a_block_is_drawn_before_and_after(result: OptimizeResult) -> None:
    found = result.report.block
    assert found is not None and found.module == "layer.0"
    page = report_page(result.report)
    graph = page[page.index('<section id="graph"') :]
    assert graph.count('class="chart graph"') == 2 and "Operators of the block" in graph
    assert "MatMul layer.0.up/MatMul, float32 16x64: other weights" in graph
    assert '<rect x="' in graph and 'class="box good"' in graph
    bomb = replace(found, before=found.before * 50)
    assert "chart graph" not in report_page(replace(result.report, block=bomb))


def test_a_decision_that_was_carried_out_alone_says_what_it_kept(result: OptimizeResult) -> None:
    (plan,) = result.report.plans
    costs = [LayerCost(d.subject, d.action, d.cost, 0.1, d.gain, 41.0) for d in plan.decisions[:1]]
    row = result.report.rows[2]
    figures = {**row.figures, "sensitivity": Sensitivity("", "", 16, tuple(costs))}
    rows = (*result.report.rows[:2], replace(row, figures=figures))
    page = report_page(replace(result.report, rows=rows))
    assert ">measured alone</th>" in page and "<td>41.0 dB</td>" in page
    assert "measured alone</th>" not in report_page(result.report)
