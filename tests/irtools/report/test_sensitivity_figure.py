"""What each layer costs, as a figure of the report."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import irtools
from irtools.data import Dataset
from irtools.instruments.sensitivity import Sensitivity
from irtools.model import Model
from irtools.report.plain import plain_data

MLP = """
<ir_version: 10, opset_import: ["" : 21]>
g (float[n,64] x, float[64,64] w_a, float[64,64] w_b) => (float[n,64] y) {
  h = MatMul(x, w_a)  a = Tanh(h)  y = MatMul(a, w_b)
}
"""


def network() -> Model:
    """Two products; some weights of the second are large, so that their blocks lose more."""
    rng = np.random.default_rng(0)
    model = ir.from_onnx_text(MLP)
    for name in ("w_a", "w_b"):
        array = rng.standard_normal((64, 64), np.float32) / 8
        if name == "w_b":
            array[::32] *= 12
        value = next(v for v in model.graph.inputs if v.name == name)
        value.const_value = ir.tensor(array, name=name)
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    return Model.from_ir(model)


def figure(**options: object) -> Sensitivity:
    result = irtools.optimize(
        network(), "int4:min-size=0", figures=("sensitivity",), bench=None, **options
    )
    assert "sensitivity" not in result.rows[0].figures
    found = result.rows[-1].figures["sensitivity"]
    assert isinstance(found, Sensitivity)
    return found


class _Row:
    index, text, modified, remedies = 1, "int4:min-size=0", True, ()

    def __init__(self, found: Sensitivity) -> None:
        self.figures = {"sensitivity": found}


def test_every_decision_is_listed_the_costliest_first() -> None:
    found = figure(check=False)
    assert {layer.subject for layer in found.layers} == {"w_a", "w_b"}
    costs = [layer.cost for layer in found.layers]
    assert costs == sorted(costs, reverse=True) and costs[-1] > 0
    assert found.cost_unit == "relative squared error of the output" and found.gain_unit == "bytes"
    assert sum(layer.share for layer in found.layers) == pytest.approx(1)
    first = found.layers[0]
    assert plain_data(found)["layers"][0]["subject"] == first.subject
    said = [verdict.text for verdict in Sensitivity.verdicts([_Row(found)])]
    assert said[0].startswith(f"int4: of the predicted loss {first.subject} ")
    assert first.measured_db is None and found.samples == 0


@pytest.mark.slow
@pytest.mark.slow
def test_the_costliest_are_carried_out_alone() -> None:
    rng = np.random.default_rng(1)
    data = Dataset({"x": rng.standard_normal((24, 64)).astype(np.float32)})
    found = figure(calibration=data)
    assert found.samples == 16
    assert all(10 < layer.measured_db < 40 for layer in found.layers)
