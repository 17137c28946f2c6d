"""From the times of single runs to hot spots."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from irtools.measure import profile as profiling
from irtools.measure.profile import OpProfile, profile_model
from irtools.model import Model
from irtools.targets import find_target


@pytest.fixture
def model() -> Model:
    found = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[4,4] x) => (float[4,4] y) '
        "{ a = MatMul (x, x) y = Relu (a) }"
    )
    found.graph[0].name = "/encoder/dense/MatMul"
    return Model(found)


def test_medians_are_summed_by_operator(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {
        "names": ["/encoder/dense/MatMul", "a_nchwc", "fused", "y/WithoutBiases"],
        "ops": ["MatMul", "Conv", "MatMul", "Relu"],
        # The first run is an outlier, which a mean would show.
        "microseconds": np.array([[9000, 9, 9, 9], [2000, 0, 1000, 1000], [2000, 0, 1000, 1000]]),
        "totals": np.array([9e3, 5e3, 6e3]),
    }

    def told(*_: Any, **__: Any) -> dict[str, Any]:
        return answer

    monkeypatch.setattr(profiling, "run_isolated", told)
    found = profile_model(
        model, find_target("ort-cpu"), {}, shape="batch=1", data="d.npz", threads=2, top=2
    )
    assert found.run_ms == 6.0 and found.threads == 2
    assert found.ops == (
        OpProfile("MatMul", 2, 3.0, 0.75),
        OpProfile("Relu", 1, 1.0, 0.25),
        OpProfile("Conv", 1, pytest.approx(0.0), pytest.approx(0.0)),
    )
    assert [(n.node, n.module, n.ms) for n in found.nodes] == [
        ("/encoder/dense/MatMul", "encoder.dense", 2.0),
        ("fused", "", 1.0),
    ]


def test_names_that_runtimes_change_keep_their_module(model: Model) -> None:
    modules = profiling.node_modules(model)
    for name in ("/encoder/dense/MatMul", "a", "a_nchwc", "a/WithoutBiases"):
        assert modules[profiling._plain(name)] == "encoder.dense"
