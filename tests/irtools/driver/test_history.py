"""What was done to a model, in the metadata of its file."""

from __future__ import annotations

import json
from pathlib import Path

import onnx_ir as ir
import pytest

from irtools import Model, optimize
from irtools.driver.history import history_of

_TEXT = """<ir_version: 10, opset_import: ["" : 20]>
g (float[batch, 4] x) => (float[batch, 4] y) {
  h = Identity(x)  one = Relu(h)  same = Relu(h)  y = Add(one, same) }"""


def _optimized(model: Model, passes: str) -> Model:
    result = optimize(model, passes, bench=None, target="ort-cpu:isa=avx2")
    assert result.report.result.sha256 == result.deployed.fingerprint()
    # Both forms say it, and in the same words.
    forms = (result.model, result.deployed)
    assert len({form.ir.metadata_props["irtools.history"] for form in forms}) == 1
    return result.deployed


def test_every_run_adds_a_line(tmp_path: Path) -> None:
    original = Model(ir.from_onnx_text(_TEXT))
    first = _optimized(original, "remove-identity")
    assert "irtools.history" not in original.ir.metadata_props
    first.save(tmp_path / "first.onnx")
    unchanged = _optimized(Model.load(tmp_path / "first.onnx"), "fuse")
    assert unchanged.fingerprint() == first.fingerprint()
    second = _optimized(unchanged, "cleanup")
    runs = history_of(second.ir.metadata_props)
    assert [run["pipeline"] for run in runs] == ["remove-identity", "cleanup"]
    assert [run["source"] for run in runs] == [original.fingerprint(), first.fingerprint()]
    assert {run["target"] for run in runs} == {"ort-cpu:isa=avx2"}
    # No time and no path: the same run gives the same bytes.
    again = _optimized(Model(ir.from_onnx_text(_TEXT)), "remove-identity")
    assert again.fingerprint() == first.fingerprint()


@pytest.mark.parametrize("text", ["", "{", "{}", "3", "[3]", "[[]]", "[" * 100_000])
def test_what_others_wrote_there_is_no_error(text: str) -> None:
    assert history_of({"irtools.history": text}) == ()


def test_unknown_values_are_text() -> None:
    found = history_of({"irtools.history": json.dumps([{"irtools": 1, "more": [2]}])})
    assert found == ({"irtools": "1", "more": "[2]"},)
