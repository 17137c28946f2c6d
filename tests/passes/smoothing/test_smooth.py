"""The pass `smooth`: what it writes, what it leaves alone, and what its scales gain."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import Dataset
from irtools.errors import UsageError
from irtools.model import Model
from irtools.passes.smoothing.smooth import Smooth
from irtools.passmanager import PassContext, PassResult, Pipeline, Plan
from irtools.targets import RunnerOptions, find_target
from irtools.testing import apply_pass, read_model

HEAD = '<ir_version: 10, opset_import: ["" : 23]>'
WIDE = 32
ALONE = "outliers=0:min-size=0:smooth=false"

PRE_NORM = f"""{HEAD}
g (float[B,S,32] x, float[32] gain, float[32] offset, float[32,48] w1, float[48] bias,
   float[32,16] w2) => (float[B,S,48] y, float[B,S,16] z) {{
  n = LayerNormalization (x, gain, offset)
  p = MatMul (n, w1)  y = Add (p, bias)  z = MatMul (n, w2)
}}"""

POST_NORM = f"""{HEAD}
g (float[B,S,32] x, float[32] gain, float[32] offset, float[32,32] w1, float[32] bias)
=> (float[B,S,32] y) {{
  n = LayerNormalization (x, gain, offset)
  p = MatMul (n, w1)  h = Add (p, bias)  r = Add (h, n)  y = Softmax (r)
}}"""

AFTER_GELU = f"""{HEAD}
g (float[B,32] x, float[32,48] w1, float[48,16] w2) => (float[B,16] y) {{
  p = MatMul (x, w1)  a = Gelu (p)  y = MatMul (a, w2)
}}"""


def weights_of(text: str, seed: int = 0, **given: np.ndarray) -> dict[str, np.ndarray]:
    """Draw the weights of a text; three channels of the gain are large."""
    rng = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {}
    for value in ir.from_onnx_text(text).graph.inputs:
        name, shape = value.name or "", value.shape
        if name == "x" or shape is None:
            continue
        dtype = (value.dtype or ir.DataType.FLOAT).numpy()
        array = rng.normal(size=tuple(int(d) for d in shape)) * 0.3
        if name == "gain":
            array = 1 + np.abs(array)
            array[:3] *= 40
        found[name] = np.asarray(given.get(name, array)).astype(dtype)
    return found


def model_of(text: str, **given: np.ndarray) -> Model:
    return read_model(text, weights_of(text, **given))


def data_for(model: Model, *, large: int = 0, zero: bool = False) -> Dataset:
    """Draw 240 samples of a model with one input; its first channels may be large."""
    (value,) = model.ir.graph.inputs
    shape = [240, *(d if isinstance(d, int) else 5 for d in list(value.shape or ())[1:])]
    x = np.random.default_rng(1).normal(size=shape)
    x[..., :large] *= 40
    dtype = (value.dtype or ir.DataType.FLOAT).numpy()
    return Dataset({value.name or "": np.zeros_like(x).astype(dtype) if zero else x.astype(dtype)})


def run(model: Model, options: str = "", data: Dataset | None = None) -> tuple[Model, PassResult]:
    after = model.clone()
    ctx = PassContext.for_model(model, "ort-cpu:isa=vnni", calibration=data or data_for(model))
    (pass_,) = Pipeline.parse(f"smooth{options}")
    return after, apply_pass(pass_, after.ir, ctx)


def nodes(model: Model) -> list[str]:
    return [
        f"{', '.join(v.name or '?' for v in node.outputs)} = {node.op_type}"
        f"({', '.join(v.name or '?' for v in node.inputs if v is not None)})"
        for node in model.ir.graph
    ]


def counts(result: PassResult) -> Mapping[str, int]:
    return {name: n for name, n in result.counters.items() if n}


def kept_db(before: Model, after: Model, data: Dataset) -> float:
    outputs = []
    for model in (before, after):
        with find_target("ort-cpu").runner(model, RunnerOptions(threads=1, exact=True)) as runner:
            outputs.append(runner.run(data.feeds))
    noise = sum(float(np.square(outputs[0][n] - outputs[1][n]).sum()) for n in outputs[0])
    signal = sum(float(np.square(outputs[0][n]).sum()) for n in outputs[0])
    return 200.0 if not noise else float(10 * np.log10(signal / noise))


def test_a_norm_takes_the_scales_and_no_node_is_written() -> None:
    model = model_of(PRE_NORM)
    after, result = run(model)
    assert nodes(after) == nodes(model)
    assert counts(result) == {"num-folded-norm": 1}
    assert kept_db(model, after, data_for(model)) > 110


def test_equal_channels_are_left_alone() -> None:
    signs = np.sign(np.random.default_rng(0).normal(size=(WIDE, 48)))
    model = model_of(PRE_NORM, gain=np.ones(WIDE), offset=np.ones(WIDE), w1=signs, w2=signs[:, :16])
    sides = np.random.default_rng(1).choice([-1.0, 1.0], (24, 5, WIDE)).astype(np.float32)
    after, result = run(model, data=Dataset({"x": sides}))
    assert not result.modified
    assert after.text() == model.text()
    assert counts(result) == {"num-skipped-gain": 1}


def test_other_readers_of_a_norm_read_it_multiplied_back() -> None:
    model = model_of(POST_NORM)
    after, result = run(model)
    assert nodes(after) == [
        "n = LayerNormalization(x, gain, offset)",
        "n_scaled = Mul(n, n_scales)",
        "p = MatMul(n, w1)",
        "h = Add(p, bias)",
        "r = Add(h, n_scaled)",
        "y = Softmax(r)",
    ]
    assert counts(result) == {"num-scaled-mul": 1}
    assert kept_db(model, after, data_for(model)) > 110


def test_no_mul_where_none_is_wanted() -> None:
    model = model_of(POST_NORM)
    after, result = run(model, ":mul-gain=none")
    assert after.text() == model.text()
    assert counts(result) == {"num-skipped-operator": 1}


def test_products_after_gelu_read_a_mul_where_it_gains() -> None:
    model = model_of(AFTER_GELU)
    data = data_for(model, large=2)
    after, result = run(model, ":mul-gain=1", data)
    assert [name for name in nodes(after) if " = Mul(" in name] == [
        "x_scaled = Mul(x, x_scales)",
        "a_scaled = Mul(a, a_scales)",
    ]
    assert counts(result) == {"num-scaled-mul": 2}
    assert kept_db(model, after, data) > 110


def test_a_mul_that_does_not_pay_is_not_written() -> None:
    model = model_of(AFTER_GELU)
    _, result = run(model, ":mul-gain=60", data_for(model, large=2))
    assert not result.modified
    assert counts(result) == {"num-skipped-input": 1, "num-skipped-operator": 1}


def test_rounding_to_eight_bits_loses_less_after_it() -> None:
    model = model_of(PRE_NORM)
    data = data_for(model)
    kept = []
    for text in (f"int8:{ALONE}", f"smooth,int8:{ALONE}"):
        after = model.clone()
        for pass_ in Pipeline.parse(text):
            ctx = PassContext.for_model(after, "ort-cpu:isa=vnni", calibration=data)
            pass_.run(after.ir, ctx)
        kept.append(kept_db(model, after, data))
    assert kept[1] > kept[0] + 6


def test_zeros_say_nothing_of_channels() -> None:
    model = model_of(PRE_NORM, offset=np.zeros(WIDE))
    _after, result = run(model, data=data_for(model, zero=True))
    assert not result.modified
    assert counts(result) == {"num-skipped-unreached": 1}


def test_a_channel_that_is_always_zero_does_no_harm() -> None:
    gain = 1 + np.abs(np.random.default_rng(0).normal(size=WIDE))
    gain[:3] *= 40
    gain[-4:] = 0
    offset = np.zeros(WIDE)
    model = model_of(PRE_NORM, gain=gain, offset=offset)
    after, result = run(model)
    assert result.modified
    assert kept_db(model, after, data_for(model)) > 110
    assert not after.ir.graph.initializers["gain"].const_value.numpy()[-4:].any()


def test_sixteen_bits_are_scaled_by_powers_of_two() -> None:
    text = PRE_NORM.replace("float[", "float16[")
    model = model_of(text)
    after, result = run(model)
    assert counts(result) == {"num-folded-norm": 1}
    before, scaled = (
        m.ir.graph.initializers["w1"].const_value.numpy().astype(np.float64) for m in (model, after)
    )
    normal = np.abs(scaled) > float(np.finfo(np.float16).tiny)
    ratios = np.log2(np.abs(scaled[normal] / before[normal]))
    assert np.array_equal(ratios, np.rint(ratios))
    assert len(np.unique(ratios)) > 1


def test_scales_that_leave_float16_are_declined() -> None:
    text = PRE_NORM.replace("float[", "float16[")
    # Just above the smallest normal float16, which a smaller scale would leave.
    tiny = np.random.default_rng(0).uniform(7e-5, 2e-4, (WIDE, 48))
    model = model_of(text, w1=tiny)
    _after, result = run(model)
    assert not result.modified
    assert counts(result) == {"num-skipped-range": 1}


def test_weights_with_nan_are_left_alone() -> None:
    broken = np.ones((WIDE, 48))
    broken[3, 3] = np.nan
    model = model_of(PRE_NORM, w1=broken)
    _after, result = run(model)
    assert not result.modified
    assert counts(result) == {"num-skipped-nonfinite": 1}


def test_patterns_exclude() -> None:
    model = model_of(PRE_NORM)
    _after, result = run(model, ":exclude=[n]")
    assert not result.modified
    assert counts(result) == {"num-skipped-excluded": 1}


def test_a_plan_survives_as_text_and_fits_its_model_only() -> None:
    model = model_of(PRE_NORM)
    ctx = PassContext.for_model(model, calibration=data_for(model))
    plan = Smooth().plan(model.ir, ctx)
    again = Plan.from_json(plan.to_json())
    direct, stored = model.clone(), model.clone()
    Smooth().apply(direct.ir, plan, ctx)
    Smooth().apply(stored.ir, again, ctx)
    assert direct.text() == stored.text() != model.text()
    with pytest.raises(UsageError, match="the plan does not fit the model"):
        Smooth().apply(model_of(POST_NORM).ir, again, ctx)


def test_plans_of_other_passes_are_refused() -> None:
    model = model_of(PRE_NORM)
    ctx = PassContext.for_model(model, calibration=data_for(model))
    plan = Smooth().plan(model.ir, ctx)
    (decision,) = plan.decisions
    for data in ({}, {**decision.data, "scales": [1.0, -2.0]}, {**decision.data, "scales": "1"}):
        wrong = Plan(plan.pass_text, (type(decision)("x", "y", data=data),))
        with pytest.raises(UsageError, match="not a decision about scales"):
            Smooth().apply(model.clone().ir, wrong, ctx)


def test_synthetic_data_is_said() -> None:
    model = model_of(PRE_NORM)
    result = Smooth().run(model.clone().ir, PassContext.for_model(model))
    assert any("synthetic" in note for note in result.notes)


@pytest.mark.parametrize("options", ["strength=1.5", "strength=-1", "mul-gain=-2"])
def test_options_have_limits(options: str) -> None:
    with pytest.raises(UsageError, match="expected 0 to"):
        Pipeline.parse(f"smooth:{options}")
