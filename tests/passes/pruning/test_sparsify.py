"""Zeros as a user asks for them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.errors import OptionError, UsageError
from irtools.model import Model
from irtools.passes.pruning.sparsify import Sparsify
from irtools.passmanager import Pipeline, Plan

WEIGHTS = ("w_one", "w_two")


def zeros(model: ir.Model, name: str) -> int:
    return int((model.graph.initializers[name].const_value.numpy() == 0).sum())


def calibration(count: int = 128, seed: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, 6, 8)) @ np.linalg.cholesky(0.7 + 0.3 * np.eye(8)).T
    return {"x": (x * 3.0 ** np.arange(-3, 5)).astype(np.float32)}


def relative_error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(a))


@pytest.mark.parametrize("scope", ["global", "local"])
def test_without_data_the_smallest_weights_go(scope, build, data_context):
    model = build("ffn")
    largest = np.sort(np.abs(np.concatenate([_flat(model, name) for name in WEIGHTS])))[256:]
    pass_ = Sparsify(ratio=0.5, scope=scope)
    result = pass_.run(model, data_context(None))
    assert sum(zeros(model, name) for name in WEIGHTS) == 256
    assert result.counters["num-weights-zeroed"] == 256
    if scope == "local":
        assert [zeros(model, name) for name in WEIGHTS] == [128, 128]
    else:
        left = np.concatenate([_flat(model, name) for name in WEIGHTS])
        np.testing.assert_array_equal(np.sort(np.abs(left[left != 0])), largest)
    assert any("compute them like any number" in note for note in result.notes)
    assert not pass_.run(model, data_context(None)).modified


def _flat(model: ir.Model, name: str) -> np.ndarray:
    return model.graph.initializers[name].const_value.numpy().reshape(-1)


@pytest.mark.parametrize(("pattern", "zeros_of", "block"), [("2of4", 2, 4), ("4of8", 4, 8)])
@pytest.mark.parametrize("data", [False, True])
def test_zeros_in_blocks(pattern, zeros_of, block, data, build, data_context):
    model = build("erf-ffn")
    ctx = data_context(calibration() if data else None)
    result = Sparsify(pattern=pattern).run(model, ctx)
    assert result.modified
    for name in WEIGHTS:
        blocks = model.graph.initializers[name].const_value.numpy().reshape(-1, block)
        assert (np.count_nonzero(blocks == 0, axis=1) == zeros_of).all()


def test_weights_that_do_not_divide_into_blocks_are_counted(build, data_context):
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[batch,6] x, float[6,4] w_1) => (float[batch,4] y) { y = MatMul(x, w_1) }
    """
    result = Sparsify(pattern="2of4").run(build(text), data_context(None))
    assert not result.modified and result.counters["num-skipped-no-blocks"] == 1


@pytest.mark.parametrize("pattern", ["unstructured", "2of4"])
def test_data_and_a_refit_bring_the_outputs_closer(pattern, build, run_model, data_context):
    feeds, unseen = calibration(), calibration(seed=4)
    ctx = data_context(feeds)
    model = build("ffn")
    dense = run_model(model, unseen)
    share = {"ratio": 0.5} if pattern == "unstructured" else {}
    errors = {}
    for method in ("magnitude", "wanda", "sparsegpt"):
        for refit in (True, False):
            sparse = model.clone()
            Sparsify(pattern=pattern, method=method, refit=refit, **share).run(sparse, ctx)
            ctx.drop_analyses()
            assert sum(zeros(sparse, name) for name in WEIGHTS) >= 256
            errors[method, refit] = relative_error(dense, run_model(sparse, unseen))
    for method in ("magnitude", "wanda", "sparsegpt"):
        assert errors[method, True] < 0.9 * errors[method, False]
    assert errors["sparsegpt", True] < errors["magnitude", True]
    assert errors["sparsegpt", False] < errors["magnitude", False]


def test_layers_that_matter_less_give_more(build, run_model, data_context):
    """The second of two layers goes through a tiny scale: its errors are not seen."""
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[batch,seq,8] x, float[8,32] w_one, float[8,32] w_two) => (float[batch,seq,32] y)
    <float s = {0.01}> {
      a = MatMul(x, w_one)
      b = MatMul(x, w_two)
      c = Mul(b, s)
      y = Add(a, c)
    }
    """
    model, local = build(text), build(text)
    ctx = data_context(calibration())
    dense = run_model(model, calibration())
    result = Sparsify(ratio=0.5).run(model, ctx)
    assert result.plan is not None and result.plan.cost_unit == "output divergence"
    assert zeros(model, "w_two") > 200 and zeros(model, "w_one") < 50
    Sparsify(ratio=0.5, scope="local").run(local, ctx)
    assert [zeros(local, name) for name in WEIGHTS] == [128, 128]
    errors = [relative_error(dense, run_model(m, calibration())) for m in (model, local)]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("name", ["ffn", "erf-ffn", "heads", "conv"])
@pytest.mark.parametrize("options", [{}, {"pattern": "2of4"}, {"method": "wanda"}])
def test_a_second_run_changes_nothing(name, options, build, data_context, random_feeds):
    model = build(name)
    ctx = data_context(random_feeds(model, batch=32))
    assert Sparsify(**options).run(model, ctx).modified
    ctx.drop_analyses()
    before = Model(model).text()
    assert not Sparsify(**options).run(model, ctx).modified
    assert Model(model).text() == before


def test_wide_convolutions_go_by_magnitude_and_are_counted(build, data_context, random_feeds):
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[batch,4,6,6] x, float[8,4,3,3] w_1, float[4,8,1,1] w_2) => (float[batch,4,4,4] y) {
      a = Conv (x, w_1)
      b = Relu (a)
      y = Conv (b, w_2)
    }
    """
    model = build(text)
    result = Sparsify(ratio=0.5).run(model, data_context(random_feeds(model, batch=8)))
    assert result.counters["num-ranked-by-magnitude"] == 1
    assert result.counters["num-weights-zeroed"] >= (8 * 4 * 9 + 32) // 2
    methods = {d.subject: d.data["method"] for d in result.plan.decisions}
    assert methods.get("w_1", "magnitude") == "magnitude"
    assert methods.get("w_2", "sparsegpt") == "sparsegpt"


def test_a_stored_plan_gives_the_same_model_on_the_file_loaded_again(build, data_context, tmp_path):
    path = tmp_path / "model.onnx"
    Model(build("ffn")).save(path)
    pass_ = Sparsify(ratio=0.5)
    first = Model.load(path)
    ctx = data_context(calibration())
    text = pass_.run(first.ir, ctx).plan.to_json()
    again = Model.load(path)
    pass_.apply(again.ir, Plan.from_json(text), data_context(calibration()))
    assert again.text() == first.text()
    with pytest.raises(UsageError, match="made with calibration data"):
        pass_.apply(Model.load(path).ir, Plan.from_json(text), data_context(None))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pattern": "four"}, "does not say how"),
        ({"method": "dice"}, "does not say how"),
        ({"zeros": "many"}, "does not say how"),
        ({"zeros": 10**6}, "sets 1000000 numbers to zero"),
        ({"pattern": "3of5"}, "for 8 inputs"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(change, message, build, data_context):
    plan = Sparsify().plan(build("ffn"), data_context(None))
    decisions = [dict(d.__dict__, data={**d.data, **change}) for d in plan.decisions]
    text = Plan.from_json(plan.to_json()).__dict__
    broken = Plan(**{**text, "decisions": tuple(type(plan.decisions[0])(**d) for d in decisions)})
    with pytest.raises(UsageError, match=message):
        Sparsify().apply(build("ffn"), broken, data_context(None))
    with pytest.raises(UsageError, match="which is not there"):
        Sparsify().apply(build("heads"), plan, data_context(None))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 1.0}, "0 <= ratio < 1"),
        ({"pattern": "2of4", "ratio": 0.5}, "leave out ratio"),
        ({"pattern": "4of8", "scope": "local"}, "leave out scope"),
    ],
)
def test_options_that_contradict_each_other(options, message):
    with pytest.raises(OptionError, match=message):
        Sparsify(**options)


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_a_method_that_needs_data_is_refused_without(method, build, data_context):
    with pytest.raises(UsageError, match=f"method={method} of sparsify needs calibration data"):
        Sparsify(method=method).run(build("ffn"), data_context(None))


def test_excluded_modules_stay(build, data_context):
    model = build("ffn")
    result = Sparsify(ratio=0.5, exclude=("w_one",)).run(model, data_context(None))
    assert [zeros(model, name) for name in WEIGHTS] == [0, 128]
    assert len(result.plan.decisions) == 1


def test_options_survive_print_and_parse():
    text = "sparsify:ratio=0.5:method=wanda:exclude=*.layer.0.*+pooler:refit=false"
    assert str(Pipeline.parse(str(Pipeline.parse(text)))) == str(Pipeline.parse(text))
