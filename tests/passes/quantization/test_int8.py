"""Options, plans and what the pass as a whole promises."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.analysis.provenance import module_of
from irtools.data import Dataset
from irtools.errors import OptionError, PipelineSyntaxError, UnsupportedError, UsageError
from irtools.model.printer import print_model
from irtools.passes.quantization.int8 import Int8
from irtools.passes.quantization.sites.names import selects
from irtools.passmanager import Pipeline, Plan

from .conftest import build, context

TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[batch,seq,16] x, float[16,32] w_up, float[32] w_b, float[32,16] w_down)
=> (float[batch,seq,16] y) {
  h = MatMul(x, w_up)
  a = Add(h, w_b)
  g = Gelu(a)
  y = MatMul(g, w_down)
}
"""


def samples(seed: int = 0) -> np.ndarray:
    """So few that none is held out."""
    return np.random.default_rng(seed).normal(size=(7, 6, 16)).astype(np.float32)


def make_plan(model: ir.Model, text: str = "int8:min-size=0") -> tuple[Int8, Plan]:
    (pass_,) = Pipeline(text)
    assert isinstance(pass_, Int8)
    return pass_, pass_.plan(model, context("ort-cpu", Dataset({"x": samples()})))


def test_planning_writes_nothing() -> None:
    model = build(TEXT)
    before = print_model(model)
    make_plan(model)
    assert print_model(model) == before


def test_the_safest_decision_comes_first() -> None:
    model = build(TEXT)
    # One outlier makes the steps of every other weight in its column too coarse.
    array = model.graph.initializers["w_up"].const_value.numpy().copy()
    array[0] *= 300
    model.graph.initializers["w_up"].const_value = ir.Tensor(array, name="w_up")
    _, plan = make_plan(model)
    assert [decision.subject for decision in plan.decisions] == ["w_up", "w_down"] or [
        decision.subject for decision in plan.decisions
    ] == ["w_down", "w_up"]
    costs = [decision.cost for decision in plan.decisions]
    assert costs == sorted(costs) and costs[0] > 0
    assert all(decision.gain > 0 for decision in plan.decisions)


def test_the_predicted_cost_is_about_right(outputs) -> None:
    model = build("""
        <ir_version: 10, opset_import: ["" : 20]>
        net (float[batch,seq,16] x, float[16,32] w) => (float[batch,seq,32] y)
        { y = MatMul(x, w) }
    """)
    pass_, plan = make_plan(model)
    after = model.clone()
    pass_.apply(after, plan, context("ort-cpu", None))
    wanted, found = outputs(model, x=samples()), outputs(after, x=samples())
    real = float(((found - wanted) ** 2).sum() / (wanted**2).sum())
    assert 0.7 < plan.decisions[0].cost / real < 1.4


@pytest.mark.parametrize("mode", ["static", "dynamic", "token-wise", "weight-only"])
def test_a_plan_survives_json_and_is_replayed_without_data(mode: str) -> None:
    model = build(TEXT)
    pass_, plan = make_plan(model, f"int8:min-size=0:mode={mode}")
    read = Plan.from_json(plan.to_json())
    texts = []
    for each in (plan, read):
        after = model.clone()
        pass_.apply(after, each, context("ort-cpu", None))
        texts.append(print_model(after))
    assert texts[0] == texts[1]


def test_any_prefix_of_a_plan_is_a_plan(outputs) -> None:
    model = build(TEXT)
    pass_, plan = make_plan(model)
    for length in range(len(plan) + 1):
        after = model.clone()
        result = pass_.apply(after, plan.prefix(length), context("ort-cpu", None))
        assert result.modified == (length > 0)
        assert result.counters.get("num-quantized-matmul", 0) == length
        outputs(after, x=samples())


def test_a_plan_for_another_model_is_refused() -> None:
    pass_, plan = make_plan(build(TEXT))
    other = build(TEXT.replace("w_up", "w_other"))
    with pytest.raises(UsageError, match=r"does not fit the model.*'w_up'"):
        pass_.apply(other, plan, context("ort-cpu", None))


@pytest.mark.parametrize("mode", ["static", "dynamic", "token-wise", "weight-only"])
def test_a_second_run_changes_nothing(quantize, mode: str) -> None:
    text = f"int8:min-size=0:mode={mode}"
    once = quantize(build(TEXT), text, x=samples())
    twice = quantize(once.after, text, x=samples())
    assert not twice.result.modified
    assert print_model(twice.after) == print_model(once.after)
    assert twice.result.counters == {"num-already-quantized": 2}


@pytest.mark.parametrize(
    ("target", "has_data", "expected"),
    [
        ("ort-cpu", True, "QuantizeLinear"),
        ("ort-cpu", False, "DynamicQuantizeLinear"),
        ("ort-cuda", True, "DequantizeLinear"),
    ],
)
def test_auto_mode(quantize, target: str, has_data: bool, expected: str) -> None:
    feeds = {"x": samples()} if has_data else {}
    done = quantize(build(TEXT), "int8:min-size=0", target=target, **feeds)
    assert done.operators[expected] > 0


@pytest.mark.parametrize(
    ("pattern", "left"), [("w_up", 1), ("w_*", 2), ("up", 1), ("w_u", 0), ("w_up+w_down", 2)]
)
def test_exclude(quantize, pattern: str, left: int) -> None:
    done = quantize(build(TEXT), f"int8:min-size=0:mode=dynamic:exclude={pattern}")
    assert done.result.counters.get("num-skipped-excluded", 0) == left


def test_exclude_by_module(quantize) -> None:
    model = build(TEXT)
    first = model.graph[0]
    first.metadata_props["pkg.torch.onnx.name_scopes"] = "['', 'encoder.layer.1.up', 'linear']"
    assert module_of(first) == "encoder.layer.1.up"
    done = quantize(model, "int8:min-size=0:mode=dynamic:exclude=layer.1")
    assert done.result.counters["num-skipped-excluded"] == 1
    assert selects(("layer.1",), ["encoder.layer.11.up"]) is None
    assert selects(("layer.?.up",), ["encoder.layer.1.up"]) == "layer.?.up"


def test_small_weights_stay(quantize) -> None:
    done = quantize(build(TEXT), "int8:mode=dynamic")
    assert not done.result.modified
    assert done.result.counters == {"num-skipped-small": 2}


def test_embeddings_can_stay(quantize) -> None:
    model = build("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (int64[n] ids, float[40,8] w) => (float[n,8] y) { y = Gather(w, ids) }
    """)
    done = quantize(model, "int8:min-size=0:embeddings=none")
    assert done.result.counters == {"num-skipped-embedding": 1}


def test_opset_is_raised_only_where_it_must(quantize) -> None:
    old = build(TEXT.replace('"" : 20', '"" : 12').replace("Gelu", "Relu"))
    assert quantize(old, "int8:min-size=0:mode=dynamic").after.graph.opset_imports[""] == 12
    done = quantize(old, "int8:min-size=0:mode=static", x=samples())
    assert done.after.graph.opset_imports[""] == 13
    assert "opset raised from 12 to 13" in done.result.notes


@pytest.mark.parametrize(
    ("mode", "needed"), [("static", 13), ("dynamic", 11), ("token-wise", 18), ("weight-only", 13)]
)
def test_a_model_whose_opset_cannot_be_raised_is_stored(quantize, mode, needed) -> None:
    old = build(TEXT.replace('"" : 20', '"" : 9').replace("Gelu", "Relu"))
    done = quantize(old, f"int8:min-size=0:mode={mode}", x=samples())
    assert done.after.graph.opset_imports[""] == 9
    assert done.result.counters == {"num-stored-other": 2}
    (note,) = (note for note in done.result.notes if "opset" in note)
    assert f"float32: 2 weights; opset {needed} is needed, the model has 9" in note
    assert "opset 9 is older than 11" in note


def test_a_plan_for_a_newer_opset_is_refused_on_an_old_model() -> None:
    new = build(TEXT.replace("Gelu", "Relu"))
    pass_, plan = make_plan(new)
    old = build(TEXT.replace('"" : 20', '"" : 9').replace("Gelu", "Relu"))
    with pytest.raises(UnsupportedError, match="int8 needs opset 13, the model has 9"):
        pass_.apply(old, plan, context("ort-cpu", None))


@pytest.mark.parametrize(
    "options",
    [{"min_size": -1}, {"block_size": 24, "mode": "weight-only"}, {"block_size": 32}],
)
def test_options_that_make_no_sense(options: dict) -> None:
    with pytest.raises(OptionError):
        Int8(**options)


def test_unknown_choices_are_refused() -> None:
    with pytest.raises(PipelineSyntaxError, match="minmax"):
        Pipeline("int8:calibrator=best")


def test_the_same_bytes_every_time(quantize) -> None:
    first, second = (quantize(build(TEXT), "int8:min-size=0", x=samples()) for _ in range(2))
    texts = [print_model(done.after, digest_length=64) for done in (first, second)]
    assert texts[0] == texts[1]
