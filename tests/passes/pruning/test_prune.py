"""The pass as a user meets it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from irtools.analysis.channels import BlockedGroup, BlockedReason
from irtools.editing import constant_of
from irtools.errors import OptionError, UnsupportedError, UsageError
from irtools.measure.base import LatencyResult
from irtools.measure.cache import OutputCache
from irtools.passes.pruning import candidates, latency
from irtools.passes.pruning.left_alone import blocked_notes
from irtools.passes.pruning.prune import Prune
from irtools.passmanager import Pipeline, Plan, Tables

_SIZES = {"ffn": 32, "erf-ffn": 32}


def _calibration(model, count=64, length=6, seed=3):
    rng = np.random.default_rng(seed)
    feeds = {}
    for value in model.graph.inputs:
        sizes = [d if isinstance(d, int) else length for d in value.shape]
        sizes[0] = count
        feeds[value.name] = rng.standard_normal(sizes).astype(np.float32)
    return feeds


def _relative_error(a, b):
    return float(np.linalg.norm(a - b) / np.linalg.norm(a))


def _parameters(model):
    weights = (v.const_value for v in model.graph.initializers.values())
    return sum(t.size for t in weights if t.dtype.is_floating_point())


@pytest.mark.parametrize("name", ["ffn", "erf-ffn", "heads", "fused-heads", "conv"])
def test_half_of_the_parameters_go_and_the_interface_stays(
    name, build, run_model, random_feeds, data_context
):
    model = build(name)
    ctx = data_context(_calibration(model))
    before = _parameters(model)
    pruned = model.clone()
    result = Prune(ratio=0.5, round_to=1).run(pruned, ctx)
    assert result.modified and len(result.plan) == 1
    assert _parameters(pruned) == before - result.counters["num-parameters-removed"]
    feeds = random_feeds(model)
    assert run_model(pruned, feeds).shape == run_model(model, feeds).shape


def test_a_refit_on_fewer_positions_than_inputs_says_so(build, data_context):
    """The second layer has 32 inputs, and a sample has 6 positions."""
    model = build("ffn")

    def notes(samples, **options):
        ctx = data_context(_calibration(model, count=samples))
        found = Prune(ratio=0.25, round_to=1, **options).run(model.clone(), ctx).notes
        return [note for note in found if "fewer positions than inputs" in note]

    (note,) = notes(5)
    assert note.startswith("1 layer saw fewer positions than inputs (the widest 30 for 32)")
    assert not notes(6)
    assert not notes(5, refit=False)


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_a_ratio_counts_a_weight_between_two_groups_once(ratio, build, data_context):
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[batch,3,4,4] x, float[20,3,1,1] w_1, float[24,20,1,1] w_2, float[4,24,1,1] w_3)
    => (float[batch,4,4,4] y) {
      a = Conv (x, w_1)
      b = Relu (a)
      c = Conv (b, w_2)
      d = Relu (c)
      y = Conv (d, w_3)
    }
    """
    model = build(text)
    before = _parameters(model)
    Prune(ratio=ratio, round_to=1, importance="magnitude").run(model, data_context(None))
    assert ratio <= 1 - _parameters(model) / before <= ratio + 0.06


@pytest.mark.parametrize("name", ["ffn", "erf-ffn", "heads", "fused-heads"])
def test_refit_brings_the_outputs_closer(name, build, run_model, data_context):
    model = build(name)
    feeds = _calibration(model)
    ctx = data_context(feeds)
    dense = run_model(model, feeds)
    errors = {}
    for refit in (True, False):
        pruned = model.clone()
        Prune(ratio=0.5, round_to=1, refit=refit, importance="obs").run(pruned, ctx)
        errors[refit] = _relative_error(dense, run_model(pruned, feeds))
        ctx.drop_analyses()
    assert errors[True] < 0.97 * errors[False]


def test_second_order_beats_activation_beats_nothing(build, run_model, data_context):
    model = build("ffn")
    feeds = _calibration(model)
    ctx = data_context(feeds)
    dense = run_model(model, feeds)
    errors = []
    for importance in ("obs", "activation", "magnitude"):
        pruned = model.clone()
        Prune(ratio=0.5, round_to=1, importance=importance, scope="local").run(pruned, ctx)
        errors.append(_relative_error(dense, run_model(pruned, feeds)))
    assert errors[0] < errors[1] * 1.001 and errors[0] < errors[2]


def test_linearly_dependent_neurons_go_without_loss(build, run_model, random_feeds, data_context):
    model = build("ffn")
    for name, axis in (("w_one", 1), ("w_b1", 0)):
        value = model.graph.initializers[name]
        array = np.moveaxis(value.const_value.numpy().copy(), axis, 0)
        array[16:] = array[:16]
        value.const_value = ir.tensor(np.ascontiguousarray(np.moveaxis(array, 0, axis)), name=name)
    feeds = random_feeds(model)
    dense = run_model(model, feeds)
    # Of fewer samples moments are shrunk, and dependence is not taken for granted.
    Prune(ratio=0.5, round_to=1).run(model, data_context(_calibration(model, count=2048)))
    assert constant_of(model.graph.node(0).inputs[1]).shape[1] == 16
    assert _relative_error(dense, run_model(model, feeds)) < 4e-3


def test_without_data_weights_rank_and_nothing_is_refitted(build, data_context):
    model = build("ffn")
    before = model.graph.initializers["w_two"].const_value.numpy()
    result = Prune(ratio=0.25).run(model, data_context(None))
    after = constant_of(model.graph.node(3).inputs[1]).numpy()
    kept = list(result.plan.decisions[0].data["kept"])
    np.testing.assert_array_equal(after, before[kept])
    assert any("no calibration data" in note for note in result.notes)


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"round_to": 16}, 16),
        ({"round_to": 5}, 15),
        ({"round_to": 1, "min_width": 30}, 30),
        ({"ffn": False}, 32),
        ({"exclude": ("*",)}, 32),
    ],
)
def test_limits_are_kept(options, left, build, data_context):
    model = build("ffn")
    result = Prune(ratio=0.5, importance="magnitude", **options).run(model, data_context(None))
    assert constant_of(model.graph.node(0).inputs[1]).shape[1] == left
    assert result.modified == (left < 32)


def test_a_plan_can_be_stored_and_replayed(build, run_model, random_feeds, data_context):
    model = build("heads")
    ctx = data_context(_calibration(model))
    pass_ = Prune(ratio=0.5)
    plan = pass_.plan(model, ctx)
    copies = [model.clone(), model.clone()]
    ctx.drop_analyses()
    pass_.apply(copies[0], plan, ctx)
    ctx.drop_analyses()
    pass_.apply(copies[1], Plan.from_json(plan.to_json()), ctx)
    feeds = random_feeds(model)
    np.testing.assert_array_equal(*(run_model(c, feeds) for c in copies))
    ctx.drop_analyses()
    assert not pass_.apply(model.clone(), plan.prefix(0), ctx).modified


def test_a_plan_for_another_model_is_refused(build, data_context):
    plan = Prune(ratio=0.5).plan(build("ffn"), data_context(None))
    with pytest.raises(UsageError, match="does not have"):
        Prune(ratio=0.5).apply(build("heads"), plan, data_context(None))


def test_blocked_groups_are_counted_with_their_reason(build, data_context):
    model = build("ffn")
    result = Prune(ratio=0.25).run(model, data_context(None))
    assert result.counters["num-groups-blocked"] == 1
    assert any("are the model's output y" in note for note in result.notes)


def test_blocked_groups_are_told_by_reason_the_commonest_first():
    def blocked(name, text, op="Softmax"):
        return BlockedGroup(name, 8, (BlockedReason(text, op, f"node of {name}"),))

    many = [blocked(f"module.{'x' * 300}.{i}", "it sums over the channels") for i in range(40)]
    few = [blocked(f"g{i}", f"reason {i}", "") for i in range(7)]
    notes = blocked_notes([*few, *many])
    assert len(notes) == 6 and all(len(note) < 200 for note in notes)
    assert notes[0].startswith(
        "40 groups not pruned, at Softmax: it sums over the channels (such as module.xx"
    )
    assert notes[1] == "1 group not pruned, reason 0 (g0)"
    assert notes[5] == "3 more groups not pruned, for 3 other reasons"
    assert blocked_notes([*few[:5], *many])[5] == "1 more group not pruned, for 1 other reason"


def _clock(milliseconds):
    """Time is a function of the number of parameters, so that every answer is known."""

    def measure(models, rough=False):
        return {
            name: LatencyResult(name, "", milliseconds(_parameters(m)), 0, 0, 0, 0, 0, 1, (1.0,))
            for name, m in models.items()
        }

    return measure


def _time_blocks_by(monkeypatch, milliseconds):
    def time_blocks(blocks, ctx):
        return [milliseconds(_parameters(block.model)) for block in blocks]

    monkeypatch.setattr("irtools.passes.pruning.latency.time_blocks", time_blocks)


@pytest.mark.parametrize("speedup", [1.2, 1.5, 2.0])
def test_speedup_is_reached_by_measuring(speedup, build, data_context, monkeypatch):
    model = build("ffn")
    # Not linear in what is removed, so the table alone would miss the target.
    measure = _clock(lambda size: 1.0 + (size / 500) ** 1.5)
    _time_blocks_by(monkeypatch, lambda size: size / 500)
    ctx = data_context(_calibration(model), measure)
    pruned = model.clone()
    result = Prune(speedup=speedup, round_to=1).run(pruned, ctx)
    times = {k: v.median_ms for k, v in measure({"a": model, "b": pruned}).items()}
    assert speedup <= times["a"] / times["b"] <= speedup * 1.12
    assert any("measured speed-up" in note for note in result.notes)


def test_trials_of_one_model_measure_once_what_is_the_same(
    build, data_context, monkeypatch, tmp_path
):
    model = build("ffn")
    clock = _clock(lambda size: 1.0 + (size / 500) ** 1.5)
    seen = Counter()

    def counted(name, function):
        def call(*given, **named):
            seen[name] += 1
            return function(*given, **named)

        return call

    _time_blocks_by(monkeypatch, lambda size: size / 500)
    monkeypatch.setattr(latency, "time_blocks", counted("blocks", latency.time_blocks))
    monkeypatch.setattr(candidates, "sensitivities", counted("outputs", candidates.sensitivities))
    monkeypatch.setattr(candidates, "removal_path_of", counted("paths", candidates.removal_path_of))
    ctx = data_context(_calibration(model), counted("models", clock))
    store = replace(ctx, tables=Tables(OutputCache(tmp_path), {"cpu": "a"}))

    def trial(ctx, speedup):
        seen.clear()
        ctx.drop_analyses()
        Prune(speedup=speedup, round_to=1).run(model.clone(), ctx)
        return dict(seen)

    assert trial(store, 1.4).keys() == {"blocks", "outputs", "paths", "models"}
    # Another speed is checked on another whole model; what predicts it is known.
    assert trial(store, 1.6).keys() <= {"models"}
    again = replace(ctx, tables=Tables(OutputCache(tmp_path), {"cpu": "a"}))
    assert trial(again, 1.5).keys() <= {"models"}, "another process of this machine"
    other = replace(ctx, tables=Tables(OutputCache(tmp_path), {"cpu": "b"}))
    assert trial(other, 1.6).keys() == {"blocks", "outputs", "paths", "models"}


def test_a_speedup_out_of_reach_is_refused_with_what_is_possible(build, data_context, monkeypatch):
    model = build("ffn")
    _time_blocks_by(monkeypatch, lambda size: size / 1000)
    ctx = data_context(_calibration(model), _clock(lambda size: 10 + size / 1000))
    with pytest.raises(UnsupportedError, match=r"out of reach.*times as fast"):
        Prune(speedup=3.0).run(model, ctx)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0.5, "speedup": 2.0}, "not both"),
        ({"ratio": 1.0}, "0 <= ratio < 1"),
        ({"speedup": 0.5}, "at least 1"),
        ({"round_to": 0}, "at least 1"),
    ],
)
def test_options_that_contradict_each_other(options, message):
    with pytest.raises(OptionError, match=message):
        Prune(**options)


def test_options_survive_print_and_parse():
    text = "prune:ratio=0.5:exclude=*.layer.0.*+pooler:round-to=8:heads=false"
    assert str(Pipeline.parse(str(Pipeline.parse(text)))) == str(Pipeline.parse(text))


@pytest.mark.parametrize("name", ["ffn", "heads", "conv"])
def test_without_data_and_without_a_share_nothing_of_worth_goes(name, build, data_context):
    model = build(name)
    result = Prune(round_to=1).run(model, data_context(None))
    assert not result.modified
    assert any("only units whose weights are zero are removed" in n for n in result.notes)
    assert result.notes[0] == "nothing pruned: no unit has only zeros as weights"


def test_without_data_dead_units_go_exactly(build, run_model, random_feeds, data_context):
    model = build("ffn")
    dead = [3, 17, 30]
    for name, axis in (("w_one", 1), ("w_b1", 0), ("w_two", 0)):
        value = model.graph.initializers[name]
        array = np.moveaxis(value.const_value.numpy().copy(), axis, 0)
        array[dead] = 0
        value.const_value = ir.tensor(np.ascontiguousarray(np.moveaxis(array, 0, axis)), name=name)
    feeds = random_feeds(model)
    dense = run_model(model, feeds)
    result = Prune(round_to=1).run(model, data_context(None))
    assert result.counters["num-neurons-removed"] == len(dead)
    assert set(range(32)) - set(result.plan.decisions[0].data["kept"]) == set(dead)
    np.testing.assert_allclose(run_model(model, feeds), dense, rtol=1e-6, atol=1e-6)
