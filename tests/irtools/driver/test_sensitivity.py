"""Decisions of a pass by what they cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.driver.planning import planned
from irtools.driver.sensitivity import Elsewhere, SensitivityReport, rank_decisions
from irtools.executors import open_executor
from irtools.model import Model

_LAYERS = 5


@pytest.fixture
def model() -> Model:
    """Layers of equal sizes; of one of them a few inputs are large."""
    rng = np.random.default_rng(0)
    x = ir.val("x", ir.DataType.FLOAT, ["batch", 128])
    value, nodes, weights = x, [], []
    for index in range(_LAYERS):
        array = rng.standard_normal((128, 128)).astype(np.float32) / 11
        if index == 2:
            array[rng.integers(0, 128, 6)] *= 40
        weight = ir.val(f"layer.{index}.weight", const_value=ir.tensor(array))
        product = ir.node("MatMul", [value, weight], name=f"layer.{index}")
        value = product.outputs[0]
        nodes.append(product)
        weights.append(weight)
        if index + 1 < _LAYERS:
            nodes.append(ir.node("Tanh", [value]))
            value = nodes[-1].outputs[0]
    value.name, value.dtype, value.shape = "y", ir.DataType.FLOAT, ir.Shape(["batch", 128])
    graph = ir.Graph([x], [value], nodes=nodes, initializers=weights, opset_imports={"": 20})
    return Model(ir.Model(graph, ir_version=10))


def _ranked(model: Model, text: str, measure: int = 0) -> SensitivityReport:
    with planned(model, text) as found:
        return rank_decisions(found, measure)


def test_the_decision_that_costs_most_comes_first(model: Model) -> None:
    found = _ranked(model, "int8:mode=static:min-size=0")
    assert len(found.rows) == _LAYERS
    costs = [row.cost for row in found.rows]
    assert costs == sorted(costs, reverse=True)
    assert sum(row.share for row in found.rows) == pytest.approx(1)
    assert all(row.measured is None for row in found.rows) and found.samples == 0


def test_measured_figures_are_those_of_each_decision_alone(model: Model) -> None:
    text = "int8:mode=static:min-size=0"
    found = _ranked(model, text, measure=_LAYERS)
    measured = [row.measured.sqnr_db for row in found.rows if row.measured is not None]
    assert len(measured) == _LAYERS and measured == sorted(measured)
    assert found.samples == 32
    # All of them together lose more than any alone.
    others = "+".join(row.subject for row in found.rows[1:])
    alone = _ranked(model, f"{text}:exclude={others}", measure=1)
    assert [row.subject for row in alone.rows] == [found.rows[0].subject]
    first = alone.rows[0].measured
    assert first is not None and first.sqnr_db == pytest.approx(measured[0], abs=0.5)


def test_what_is_measured_ranks_before_what_is_not(model: Model) -> None:
    found = _ranked(model, "int8:mode=static:min-size=0", measure=2)
    assert [row.measured is None for row in found.rows] == [False] * 2 + [True] * 3
    assert min(r.cost for r in found.rows[:2]) >= max(r.cost for r in found.rows[2:])


def test_advice_leaves_out_what_carries_half_of_the_loss(model: Model) -> None:
    found = _ranked(model, "int8:mode=dynamic:min-size=0:exclude=none-such")
    assert found.exclude == ("layer.2.weight",)
    assert "exclude=none-such+layer.2.weight" in found.advice
    assert found.kept_gain == pytest.approx(0.8)
    left = _ranked(model, found.advice)
    assert len(left.rows) == _LAYERS - 1 and "layer.2.weight" not in {r.subject for r in left.rows}


def test_no_advice_where_all_cost_alike(model: Model) -> None:
    found = _ranked(model, "int4:min-size=0")
    assert found.exclude == () and found.advice == "" and found.kept_gain == 1


@pytest.mark.slow
def test_workers_measure_what_this_process_would(model: Model, tmp_path: Path) -> None:
    """Two processes, each with a plan of its own, find the same figures."""
    text = "int8:mode=static:min-size=0"
    model.save(tmp_path / "m.onnx")
    said: list[str] = []
    with planned(tmp_path / "m.onnx", text) as found:
        here = rank_decisions(found, _LAYERS)
        payload = {"model": str(tmp_path / "m.onnx"), "calibration": None, "pipeline": text}
        workers = Elsewhere(open_executor("local:2"), payload, said.append)
        there = rank_decisions(found, _LAYERS, workers)
    assert there == here
    assert not said
