"""Text in, text out, and contexts for models."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools import PassContext, PassResult, Pipeline
from irtools.data import Dataset
from irtools.errors import UnknownNameError, VerificationError
from irtools.passmanager import Pass
from irtools.statistics import MinMax, Want
from irtools.targets import RunnerOptions
from irtools.testing import TINY_MODELS, read_model, run_on_text

_TWICE = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[batch, 4] x) => (float[batch, 4] y) { h = Identity (x)  y = Relu (h) }
"""


def pass_of(text: str) -> Pass:
    (found,) = Pipeline.parse(text)
    return found


def test_text_to_text() -> None:
    assert run_on_text(pass_of("remove-identity"), _TWICE) == (
        "ir 10, opset 20\ngraph (x: float32[batch, 4]) -> (y: float32[batch, 4])\n  y = Relu(x)\n"
    )


def test_what_is_not_sound_is_refused() -> None:
    class Cut(Pass):
        """Take the interface away."""

        name = "cut"

        def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
            model.graph.outputs[0].name = "z"
            return PassResult(modified=True)

    with pytest.raises(VerificationError, match="z"):
        run_on_text(Cut(), _TWICE)


def test_a_dishonest_pass_is_refused() -> None:
    class Lie(Pass):
        """Claim a change."""

        name = "lie"

        def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
            return PassResult(modified=True)

    with pytest.raises(AssertionError, match="lie returned modified=True"):
        run_on_text(Lie(), _TWICE)


def test_weights_of_a_text() -> None:
    model = read_model(
        '<ir_version: 10, opset_import: ["" : 20]> '
        "g (float[2] x, float[2] w) => (float[2] y) { y = Add (x, w) }",
        {"w": np.array([1, 2], np.float32)},
    )
    assert [value.name for value in model.ir.graph.inputs] == ["x"]
    assert list(model.ir.graph.initializers) == ["w"]


@pytest.mark.parametrize("name", TINY_MODELS)
def test_a_context_runs_a_model_and_observes_it(name: str) -> None:
    model = TINY_MODELS[name]()
    ctx = PassContext.for_model(model, "ort-cpu:isa=avx2", seed=3, threads=1)
    assert (ctx.target.name, ctx.seed, ctx.calibration) == ("ort-cpu", 3, None)
    wants = [Want("logits", MinMax())]
    (found,) = ctx.statistics(model.ir).collect(wants).values()
    assert found is not None


def test_a_context_with_data() -> None:
    model = TINY_MODELS["mlp"]()
    data = Dataset({"x": np.zeros((3, 32), np.float32)}, source="zeros")
    ctx = PassContext.for_model(model, calibration=data, threads=1)
    assert ctx.calibration is data
    with ctx.runner(model.ir, RunnerOptions(exact=True)) as runner:
        assert runner.run(data.feeds)["logits"].shape == (3, 8)


def test_an_unknown_target() -> None:
    with pytest.raises(UnknownNameError, match="ort-gpu"):
        PassContext.for_model(TINY_MODELS["mlp"](), "ort-gpu")
