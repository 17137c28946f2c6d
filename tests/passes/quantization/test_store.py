"""The pass `store`: forms of storage alone, as a user chooses among them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.errors import OptionError, UsageError
from irtools.model import Model
from irtools.model.printer import print_model
from irtools.passes.quantization.forms.registry import forms_of
from irtools.passes.quantization.forms.stored import StoredForm
from irtools.passes.quantization.store import Store
from irtools.passmanager import Pipeline, Plan
from irtools.targets import RunnerOptions, find_target

from .conftest import build, context, relative_error

FORMS = tuple(forms_of(StoredForm))  # type: ignore[type-abstract]
HEAD = '<ir_version: 10, opset_import: ["" : 21]> '
NET = (
    HEAD
    + """
g (int64[b,4] ids, float[40,8] w, float[8,16] w_up, float[6,16,3] w_conv) => (float[b,6,m] y) {
  e = Gather(w, ids)  h = MatMul(e, w_up)  r = Relu(h)  t = Transpose<perm=[0,2,1]>(r)
  y = Conv<pads=[1,1]>(t, w_conv)
}
"""
)
IDS = np.array([[1, 5, 39, 0], [7, 7, 2, 3]])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("target", ["ort-cpu", "openvino-cpu"])
def test_every_form_is_read_by_every_target(form: str, target: str, quantize, outputs) -> None:
    """With the runtime's optimizations and without them the same numbers come out."""
    model = build(NET)
    done = quantize(model, f"store:form={form}:min-size=0", target)
    assert done.result.modified and len(done.result.plan.decisions) == 3
    assert {node.op_type for node in model.graph} <= set(done.operators)
    wanted = outputs(model, ids=IDS)
    exact = outputs(done.after, ids=IDS)
    assert 0 < relative_error(exact, wanted) < 0.05
    with find_target(target).runner(Model(done.after), RunnerOptions(precision="f32")) as runner:
        (found,) = runner.run({"ids": IDS}).values()
    assert relative_error(found, exact) < 1e-5


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_expanded_when_the_model_is_loaded(form: str, quantize, kernels) -> None:
    done = quantize(build(NET), f"store:form={form}:min-size=0")
    assert not {"Cast", "Mul", "DequantizeLinear"} & set(kernels(done.after))


@pytest.mark.openvino
@pytest.mark.parametrize("form", [form for form in FORMS if form != "s8"])
def test_no_form_but_s8_is_expanded_at_each_run(form: str, quantize, openvino_layers) -> None:
    """Integers of 8 bits stay what they are in front of MatMul, and are multiplied as they are."""
    model = build(HEAD + "g (float[b,32] x, float[32,16] w) => (float[b,16] y) {y = MatMul(x, w)}")
    done = quantize(model, f"store:form={form}:min-size=0", "openvino-cpu")
    _, layers = openvino_layers(done.after, x=np.ones((2, 32), np.float32))
    kept = {name.partition("[")[0] for name in layers} & {"Convert", "Eltwise", "Subgraph"}
    assert not kept, layers


@pytest.mark.parametrize("form", FORMS)
def test_the_file_shrinks_by_what_is_predicted(form: str, quantize) -> None:
    model = build(NET)
    done = quantize(model, f"store:form={form}:min-size=0")
    before, after = (
        sum(v.const_value.nbytes for v in m.graph.initializers.values())
        for m in (model, done.after)
    )
    assert sum(d.gain for d in done.result.plan.decisions) == before - after > 0


@pytest.mark.parametrize("form", FORMS)
def test_plans_are_replayed_and_a_second_run_changes_nothing(form: str, quantize) -> None:
    model = build(NET)
    pass_ = Store(form=form, min_size=0)
    plan = pass_.plan(model, context("ort-cpu", None))
    assert Plan.from_json(plan.to_json()) == plan
    first = model.clone()
    pass_.apply(first, Plan.from_json(plan.to_json()), context("ort-cpu", None))
    again = quantize(first, f"store:form={form}:min-size=0")
    assert not again.result.modified and print_model(again.after) == print_model(first)


def test_what_options_leave_alone_is_counted(quantize) -> None:
    done = quantize(build(NET), "store:min-size=0:embeddings=false:exclude=w_up")
    assert done.result.counters == {
        "num-stored-conv": 1,
        "num-skipped-embedding": 1,
        "num-skipped-excluded": 1,
    }
    assert quantize(build(NET), "store").result.counters == {"num-skipped-small": 3}


def test_weights_that_lose_much_are_stored_in_16_bits(quantize, outputs) -> None:
    kernel = np.random.default_rng(2).normal(size=(4, 48)).astype(np.float32)
    kernel[:, 0] = 90
    model = build(
        HEAD + "g (float[b,8,20] x, float[16,8,3] w1, float[4,16,3] w2) => (float[b,4,m] y) "
        "{ c = Conv(x, w1) r = Relu(c) y = Conv(r, w2) }",
        w2=kernel.reshape(4, 16, 3),
    )
    x = np.random.default_rng(1).normal(size=(8, 8, 20)).astype(np.float32)
    done = quantize(model, "store:min-size=0:least-sqnr=50", x=x)
    assert done.result.counters["num-stored-half"] >= 1
    assert relative_error(outputs(done.after, x=x), outputs(model, x=x)) < 10 ** (-50 / 20)
    assert "with all in s8 the outputs keep" in done.result.notes[-1]
    plain = quantize(model, "store:min-size=0:least-sqnr=none", x=x)
    assert plain.result.counters == {"num-stored-conv": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("store:form=fp5", r"'form' of pass 'store' is 'fp5', expected s8\|f16"),
        ("store:min-size=-1", "min-size is -1"),
        ("store:least-sqnr=inf", "least-sqnr is inf"),
    ],
)
def test_options_that_do_not_go(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Pipeline(text)


def test_a_form_that_does_not_exist_is_refused_in_python_too() -> None:
    with pytest.raises(OptionError, match=r"form is 'fp5', expected s8\|f16"):
        Store(form="fp5")


@pytest.mark.parametrize("target", ["ort-cpu", "openvino-cpu"])
def test_targets_expand_the_types_that_they_name(target: str) -> None:
    """Cast and Mul of a constant of each type, in front of a product, with all optimizations."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 8)).astype(np.float32)
    for name in sorted(find_target(target).capabilities.stored_types):
        kind = ir.DataType[name.upper()]
        codes = rng.integers(0, 100, (8, 6)).astype(np.float32).astype(kind.numpy())
        scale = np.full((1, 6), 0.01, np.float32)
        model = build(
            HEAD + f"g (float[4,8] x, {name}[8,6] w, float[1,6] w_s) => (float[4,6] y) "
            "{ c = Cast<to=1>(w) d = Mul(c, w_s) y = MatMul(x, d) }",
            w=codes,
            w_s=scale,
        )
        with find_target(target).runner(Model(model), RunnerOptions(precision="f32")) as runner:
            found = runner.run({"x": x})["y"]
        np.testing.assert_allclose(
            found, x @ (codes.astype(np.float32) * scale), rtol=1e-4, atol=1e-5, err_msg=name
        )
