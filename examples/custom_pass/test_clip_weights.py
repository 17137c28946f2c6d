"""The tests of an own pass, with what `irtools.testing` gives.

pip install ./examples/custom_pass
pytest examples/custom_pass
"""

from __future__ import annotations

import numpy as np
import pytest
from clip_weights import ClipWeights

from irtools import PassContext
from irtools.errors import OptionError
from irtools.testing import TINY_MODELS, check_pass, read_model, run_on_text

SOURCE = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[batch, 2] x) => (float[batch, 2] y)
<float[2, 2] w = {0.0, 0.0, 0.0, 8.0}> { y = MatMul (x, w) }
"""


def test_contract() -> None:
    # Two standard deviations, so that the weights of the tiny models have outliers.
    assert check_pass(ClipWeights(sigmas=2.0)) == ("mlp", "convnet", "embedder", "branches")


def test_an_outlier_is_moved() -> None:
    # Mean 2 and standard deviation 3.4641: one of them above the mean is 5.4641.
    assert "[0.0, 0.0, 0.0, 5.464102]" in run_on_text(ClipWeights(sigmas=1.0), SOURCE)


def test_what_lies_within_stays() -> None:
    assert "[0.0, 0.0, 0.0, 8.0]" in run_on_text(ClipWeights(sigmas=2.0), SOURCE)


def test_the_cheapest_decision_comes_first() -> None:
    model = TINY_MODELS["mlp"]()
    ctx = PassContext.for_model(model, "ort-cpu:isa=vnni", threads=1)
    costs = [decision.cost for decision in ClipWeights(sigmas=2.0).plan(model.ir, ctx).decisions]
    assert len(costs) == 3 and costs == sorted(costs)


def test_a_part_of_a_plan_applies() -> None:
    model = read_model(SOURCE)
    pass_, ctx = ClipWeights(sigmas=1.0), PassContext.for_model(read_model(SOURCE))
    plan = pass_.plan(model.ir, ctx)
    assert not pass_.apply(model.ir, plan.prefix(0), ctx).modified
    weight = model.ir.graph.initializers["w"].const_value
    assert weight is not None and np.max(weight.numpy()) == 8


def test_a_width_of_nothing_is_refused() -> None:
    with pytest.raises(OptionError, match="sigmas is 0, expected a number above 0"):
        ClipWeights(sigmas=0.0)
