"""What is planned for every instruction set, on whatever CPU the tests run."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import pytest

from irtools.analysis.int8_products import int8_products, saturating_products
from irtools.data import Dataset
from irtools.errors import UnsupportedError
from irtools.model import verify
from irtools.model.printer import print_model
from irtools.passes.quantization.forms.base import WeightDecision
from irtools.passes.quantization.forms.multiplied import Multiplied
from irtools.passes.quantization.forms.registry import read_decision
from irtools.passes.quantization.smoothed import scales_in
from irtools.passmanager import Pipeline, PlanningPass
from irtools.targets import Isa

from .conftest import build, context, relative_error

SATURATING = {Isa.SSE, Isa.AVX2, Isa.AVX512}

MODELS = {
    "text": """
    <ir_version: 10, opset_import: ["" : 21]>
    g (int64[b,n] x, float[40,32] w0, float[32,64] w1, float[64] w1_b, float[32,64] w2)
    => (float[b,n,32] y) {
      e = Gather(w0, x)  m = MatMul(e, w1)  h = Add(m, w1_b)  a = Relu(h)
      t = Transpose<perm=[1,0]>(w2)  y = MatMul(a, t)
    }
    """,
    "image": """
    <ir_version: 10, opset_import: ["" : 21]>
    g (float[b,3,8,8] x, float[8,3,3,3] w1, float[8] w1_b, float[8,1,3,3] w2, float[10,72] w3)
    => (float[b,10] y) {
      c = Conv(x, w1, w1_b)  r = Relu(c)  d = Conv<group=8>(r, w2)
      p = MaxPool<kernel_shape=[2,2]>(d)  f = Flatten(p)  y = Gemm<transB=1>(f, w3)
    }
    """,
}
INT8 = [
    "int8:min-size=0",
    "int8:mode=static:embeddings=4:min-size=0",
    "int8:mode=dynamic:min-size=0",
    "int8:mode=token-wise:min-size=0",
]
OTHERS = ["int4:min-size=0", "int4:symmetric=true:min-size=0", "int4:format=nf4:min-size=0", "fp16"]


def _data(name: str) -> np.ndarray:
    rng = np.random.default_rng(3)
    if name == "text":
        return rng.integers(0, 40, (4, 6))
    return rng.normal(size=(6, 3, 8, 8)).clip(-2, 2).astype(np.float32)


def _planned(name: str, text: str, target: str) -> tuple[ir.Model, list[WeightDecision], list[str]]:
    """Return a quantized copy, what was decided and what is said of it."""
    model, ctx = build(MODELS[name]), context(target, Dataset({"x": _data(name)}))
    (pass_,) = Pipeline(text)
    assert isinstance(pass_, PlanningPass)
    plan = pass_.plan(model.clone(), ctx)
    after = model.clone()
    result = pass_.apply(after, plan, ctx)
    verify(after)
    return after, [read_decision(d) for d in scales_in(plan)[1].decisions], list(result.notes)


@pytest.mark.parametrize("isa", list(Isa))
@pytest.mark.parametrize("target", ["ort-cpu", "openvino-cpu"])
def test_int8_for_every_instruction_set(isa: Isa, target: str, outputs) -> None:
    for name, text in itertools.product(MODELS, INT8):
        after, decisions, notes = _planned(name, text, f"{target}:isa={isa.value}")
        products = list(int8_products(after))
        saturates = isa in SATURATING
        computed = [d for d in decisions if isinstance(d.form, Multiplied)]
        assert len(products) == sum(len(d.uses) for d in computed)
        assert not saturates or saturating_products(after) == ()
        assert all(d.form.weight_range == ("pairs" if saturates else "full") for d in computed)
        assert any("leave 16 bits" in n for n in notes) == bool(saturates and computed)
        is_slow = target == "openvino-cpu" and saturates
        if "mode" not in text and name == "text":
            assert bool(computed) != is_slow
        said = any("int8 products are slower" in n for n in notes)
        assert said == (is_slow)
        x = _data(name)
        assert relative_error(outputs(after, x=x), outputs(build(MODELS[name]), x=x)) < 0.1, (
            name,
            text,
        )


@pytest.mark.parametrize("text", OTHERS)
def test_other_forms_do_not_depend_on_it(text: str) -> None:
    found = set()
    for name, isa in itertools.product(MODELS, Isa):
        model = build(MODELS[name])
        (pass_,) = Pipeline(text)
        result = pass_.run(model, context(f"ort-cpu:isa={isa.value}", None))
        verify(model)
        found.add((name, print_model(model), result.notes))
    assert len(found) == len(MODELS)


def test_bf16_only_where_it_is_fast() -> None:
    for isa in set(Isa) - {Isa.VNNI}:  # of which some have it
        model = build(MODELS["text"])
        (pass_,) = Pipeline("bf16")
        ctx = context(f"openvino-cpu:isa={isa.value}", None)
        if isa is Isa.AMX:
            assert pass_.run(model, ctx).notes is not None
        else:
            with pytest.raises(UnsupportedError):
                pass_.run(model, ctx)
