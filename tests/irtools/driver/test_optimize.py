"""`irtools.optimize` from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import irtools
from irtools.errors import UsageError
from irtools.passes.cleanup.cleanup import Cleanup
from irtools.report.document import Report


@pytest.fixture
def model() -> ir.Model:
    """x [batch, 8] -> y through an Identity and a MatMul."""
    x = ir.val("x", ir.DataType.FLOAT, ir.Shape(["batch", 8]))
    w = ir.val("w", const_value=ir.tensor(np.eye(8, dtype=np.float32), name="w"))
    same = ir.node("Identity", [x])
    out = ir.node("MatMul", [same.outputs[0], w])
    y = out.outputs[0]
    y.name, y.type, y.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape(["batch", 8])
    graph = ir.Graph([x], [y], nodes=[same, out], initializers=[w], opset_imports={"": 20})
    return ir.Model(graph, ir_version=10)


def test_every_kind_of_model_and_pipeline(model: ir.Model, tmp_path: Path) -> None:
    ir.save(model, tmp_path / "m.onnx")
    models: list[Any] = [
        tmp_path / "m.onnx",
        str(tmp_path / "m.onnx"),
        model,
        ir.to_proto(model),
        irtools.Model(model),
    ]
    pipelines: list[Any] = ["cleanup", Cleanup(), irtools.Pipeline("cleanup")]
    found = {
        irtools.optimize(m, p, bench=None, check=False).model.fingerprint()
        for m in models
        for p in pipelines
    }
    assert len(found) == 1
    assert len(model.graph) == 2, "the caller's model stays as it was"


def test_result_has_model_report_and_rows(model: ir.Model) -> None:
    result = irtools.optimize(model, "cleanup", bench=None)
    assert [row.text for row in result.rows] == ["original", "cleanup"]
    assert len(result.model.ir.graph) == 1
    assert "cleanup" in str(result.report)


def test_without_data_passes_that_keep_the_function_are_rated_on_the_feeds_of_the_check(
    model: ir.Model,
) -> None:
    result = irtools.optimize(model, "cleanup", bench=None)
    assert result.report.evaluation is None
    assert [row.fidelity.samples for row in result.rows if row.fidelity is not None] == [2, 4]
    assert "4 samples of synthetic data" in str(result.report)
    judged = irtools.optimize(model, "cleanup", bench=None, effort="thorough")
    assert judged.report.evaluation is not None and judged.report.evaluation.synthetic


def test_what_is_to_be_known_of_the_source_is_in_the_report(model: ir.Model) -> None:
    given = irtools.Model(model)
    given.notes = ("weights were left out",)
    report = irtools.optimize(given, "cleanup", bench=None, check=False).report
    assert "weights were left out" in [verdict.text for verdict in report.verdicts]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"goals": "max-drop=1.5"}, "max-drop is 150%"),
        ({"drop_slower": True}, "needs the benchmark"),
    ],
)
def test_combinations_that_make_no_sense(
    model: ir.Model, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        irtools.optimize(model, "cleanup", bench=None, **arguments)


def test_something_else_is_no_model() -> None:
    wrong: Any = 3
    with pytest.raises(UsageError, match="the model is a int"):
        irtools.optimize(wrong, "cleanup")


def test_an_artifact_of_a_model_in_memory_is_written_and_checked(
    model: ir.Model, tmp_path: Path
) -> None:
    result = irtools.optimize(model, "cleanup", bench=None, threads=1)
    report, files = irtools.write_artifact(result, tmp_path / "a.onnx")
    assert files == (tmp_path / "a.onnx",) and report.artifact is not None
    with pytest.raises(UsageError, match="exists"):
        irtools.write_artifact(result, tmp_path / "a.onnx")
    report, files = irtools.write_artifact(result, tmp_path / "deploy")
    assert {path.name for path in files} == {"model.onnx", "report.html", "report.json"}
    assert Report.from_json((tmp_path / "deploy" / "report.json").read_text()) == report
