"""`int4:bits=auto`: bits, blocks and zero points of each weight by a knapsack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.cli.main import run
from irtools.data import Dataset
from irtools.errors import UnsupportedError, UsageError
from irtools.model import Model
from irtools.passes.quantization.alternatives import influences
from irtools.passmanager import Decision, Pipeline
from irtools.targets import find_target, lowered

from .conftest import build, context, relative_error

AUTO = "int4:min-size=0:bits=auto"
BRANCHES = """
<ir_version: 10, opset_import: ["" : 21]>
g (float[n,128] x, float[128,128] w_a, float[128,128] w_b, float[128,128] w_c, float w_small)
=> (float[n,128] y) {
  a = MatMul(x, w_a)  b = MatMul(x, w_b)  c = MatMul(x, w_c)
  d = Mul(b, w_small)  e = Mul(c, w_small)  f = Add(a, d)  y = Add(f, e)
}
"""
TIED = """
<ir_version: 10, opset_import: ["" : 21]>
g (int64[batch,seq] ids, float[4096,128] w, float[128,128] w_m) => (float[batch,seq,4096] y) {
  x = Gather(w, ids)
  h = MatMul(x, w_m)
  a = Tanh(h)
  t = Transpose(w)
  y = MatMul(a, t)
}
"""


def branches() -> ir.Model:
    """Three products; the output is that of the first, and a fiftieth of the others."""
    rng = np.random.default_rng(0)
    weights = (rng.normal(size=(128, 128)).astype(np.float32) / 11 for _ in range(3))
    named = dict(zip(("w_a", "w_b", "w_c"), weights, strict=True))
    return build(BRANCHES, **named, w_small=np.array(0.02, np.float32))


def inputs(seed: int = 1) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).normal(size=(64, 128)).astype(np.float32)}


def weight_bytes(model: ir.Model) -> int:
    return sum(v.const_value.nbytes for v in model.graph.initializers.values())


def test_no_more_error_than_four_bits_everywhere_from_fewer_bytes(quantize, outputs) -> None:
    model, fresh = branches(), inputs(2)
    wanted = outputs(model, **fresh)
    found = {}
    for text in ("int4:min-size=0", AUTO):
        done = quantize(model, text, **inputs())
        error = relative_error(outputs(done.after, **fresh), wanted)
        found[text] = (
            weight_bytes(done.after),
            error,
            sum(d.cost for d in done.result.plan.decisions),
        )
    plain, mixed = found.values()
    assert mixed[0] < 0.92 * plain[0]
    assert mixed[1] < 1.05 * plain[1]


def test_predicted_without_data(quantize) -> None:
    done = quantize(branches(), AUTO)
    usual = quantize(branches(), "int4:min-size=0")
    costs = [sum(d.cost for d in each.result.plan.decisions) for each in (done, usual)]
    assert costs[0] <= costs[1] * 1.001
    # Equal weights with nothing known of the outputs: one form for all is best.
    assert weight_bytes(done.after) <= weight_bytes(usual.after)
    assert "bits=auto: " in done.result.notes[0]


@pytest.mark.parametrize("limit", [27_000, 35_000, 50_000])
def test_a_size_is_kept_and_used(quantize, limit: int) -> None:
    model = branches()
    done = quantize(model, f"{AUTO}:size={limit}B", **inputs())
    assert 0.9 * limit < weight_bytes(done.after) <= limit


def test_more_bytes_are_less_error(quantize, outputs) -> None:
    model, fresh = branches(), inputs(2)
    wanted = outputs(model, **fresh)
    errors = [
        relative_error(
            outputs(quantize(model, f"{AUTO}:size={s}kB", **inputs()).after, **fresh), wanted
        )
        for s in (27, 35, 50)
    ]
    assert 0.02 > errors[0] > 1.5 * errors[1] and errors[1] > errors[2]


def test_decibels_are_kept(quantize, outputs) -> None:
    model, data = branches(), inputs()
    sizes = []
    for least in (16, 24, 44):
        done = quantize(model, f"{AUTO}:min-sqnr={least}", **data)
        kept = -20 * np.log10(relative_error(outputs(done.after, **data), outputs(model, **data)))
        assert kept > least - 1
        sizes.append(weight_bytes(done.after))
    assert sizes[0] < sizes[1] < sizes[2]


def test_the_place_that_matters_gets_the_bits(quantize) -> None:
    done = quantize(branches(), f"{AUTO}:size=35kB", **inputs())
    bits = {d.subject: d.data["bits"] for d in done.result.plan.decisions}
    assert bits == {"w_a": 8, "w_b": 4, "w_c": 4}


def test_tables_take_part(quantize) -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 4096, (16, 8))
    model = build(TIED, w=rng.normal(size=(4096, 128)).astype(np.float32))
    plain = weight_bytes(quantize(model, "int4:min-size=0", ids=ids).after)
    done = quantize(model, f"{AUTO}:size={int(0.6 * plain)}B", ids=ids)
    assert {d.data["bits"] for d in done.result.plan.decisions if d.data["form"] == "tied"} == {4}
    left = quantize(model, f"{AUTO}:embeddings=none", ids=ids).result.plan
    assert [d.data["form"] for d in left.decisions] == ["int4"]


def test_every_form_is_multiplied_as_it_is(quantize, kernels) -> None:
    target = find_target("ort-cpu:isa=vnni")
    done = quantize(branches(), f"{AUTO}:size=35kB", **inputs())
    operators = kernels(lowered(Model(done.after), target).ir)
    assert operators["MatMulNBits"] == 3 and not operators["DequantizeLinear"]


def test_any_prefix_of_the_plan_applies() -> None:
    model = branches()
    (found,) = Pipeline.parse(f"{AUTO}:size=35kB")
    ctx = context("ort-cpu:isa=vnni", Dataset(inputs()))
    plan = found.plan(model, ctx)
    copy = model.clone()
    result = found.apply(copy, plan.prefix(1), ctx)
    assert result.counters["num-quantized-matmul"] == 1
    assert [d.cost for d in plan.decisions] == sorted(d.cost for d in plan.decisions)


ATTENTION = """
<ir_version: 10, opset_import: ["" : 23]>
g (float[n,8,128] x, float[128,128] w_a, float[128,128] w_b, float[128,128] w_c)
=> (float[n,8,128] y) {
  a = MatMul(x, w_a)  b = MatMul(x, w_b)  c = MatMul(x, w_c)
  y = Attention <q_num_heads = 4, kv_num_heads = 4> (a, b, c)
}
"""


@pytest.mark.parametrize("text", [f"{AUTO}:min-sqnr=3", "int8:min-size=0:bits=auto:min-sqnr=3"])
def test_no_form_that_the_opset_cannot_express(quantize, text: str) -> None:
    """2 bits need opset 25, and Attention means something else from opset 24 on."""
    x = np.random.default_rng(1).normal(size=(16, 8, 128)).astype(np.float32)
    done = quantize(build(ATTENTION), text, "ort-cpu:isa=vnni", x=x)
    assert done.after.opset_imports[""] == 23
    assert len(done.result.plan.decisions) == 3
    free = quantize(build(ATTENTION.replace("23", "25")), text, "ort-cpu:isa=vnni", x=x)
    assert weight_bytes(free.after) < weight_bytes(done.after)


def test_what_cannot_be_kept_is_refused(quantize) -> None:
    with pytest.raises(UnsupportedError, match=r"size=5\.0 kB cannot be reached: the smallest"):
        quantize(branches(), f"{AUTO}:size=5kB")
    with pytest.raises(UnsupportedError, match=r"min-sqnr=90 cannot be kept: the finest forms"):
        quantize(branches(), f"{AUTO}:min-sqnr=90", **inputs())
    with pytest.raises(UnsupportedError, match="min-sqnr needs a run of the model"):
        quantize(branches(), f"{AUTO}:min-sqnr=20")
    with pytest.raises(UnsupportedError, match=r"min-sqnr=34 takes .* more than size=26\.0 kB"):
        quantize(branches(), f"{AUTO}:min-sqnr=34:size=26kB", **inputs())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("int4:size=3MB", "size needs bits=auto"),
        ("int4:min-sqnr=3", "min-sqnr needs bits=auto"),
        ("int4:bits=auto:size=80", "size is '80', expected a size such as 80MB or 1.5GB"),
        ("int4:bits=auto:format=nf4", "bits=auto chooses among integers: leave out format=nf4"),
        ("int4:bits=auto:min-sqnr=nan", "min-sqnr is nan, expected a number of decibels"),
        ("int4:bits=3", "is '3', expected 4|auto"),
    ],
)
def test_wrong_options_are_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        Pipeline.parse(text)
    assert said in str(error.value)


def test_influence_is_what_the_outputs_lose_for_the_predicted_error() -> None:
    from irtools.passes.quantization.alternatives import Alternatives

    found = [Alternatives(d, (d,)) for d in (Decision("a", "", 0.01), Decision("b", "", 0.02))]
    lost = {"a": 0.001, "b": None}
    factors = influences(found, lambda some: lost[some[0].subject], lambda done, total: None)
    np.testing.assert_allclose(factors, [0.1, 0.1])  # The second is not known: as the others.


def test_as_a_user_types_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Model(branches()).save(tmp_path / "model.onnx")
    np.savez(tmp_path / "x.npz", **inputs())
    call = ["optimize", "model.onnx", "--passes", f"{AUTO}:size=35kB", "--calibrate", "x.npz"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert run([*call, "-o", "small.onnx", "--no-bench"]) == 0
    said = capfd.readouterr().err
    assert "bits=auto: " in said and "errors are weighed by what the outputs lose" in said
    assert (tmp_path / "small.onnx").stat().st_size < 40_000


INT8 = "int8:min-size=0:smooth=false"


def test_int8_gives_four_bits_to_what_loses_least(quantize, outputs) -> None:
    model, data = branches(), inputs()
    whole = quantize(model, INT8, **data)
    limit = int(0.75 * weight_bytes(whole.after))
    done = quantize(model, f"{INT8}:bits=auto:size={limit}B", **data)
    assert weight_bytes(done.after) <= limit
    forms = {d.subject: d.data["form"] for d in done.result.plan.decisions}
    assert forms == {"w_a": "static", "w_b": "int4", "w_c": "int4"}
    error = relative_error(outputs(done.after, **data), outputs(model, **data))
    assert error < 1.2 * relative_error(outputs(whole.after, **data), outputs(model, **data))


def test_int8_keeps_decibels_from_fewer_bytes(quantize, outputs) -> None:
    model, data = branches(), inputs()
    sizes = []
    for least in (18, 34):
        done = quantize(model, f"{INT8}:bits=auto:min-sqnr={least}", **data)
        kept = -20 * np.log10(relative_error(outputs(done.after, **data), outputs(model, **data)))
        assert kept > least - 1
        sizes.append(weight_bytes(done.after))
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("int8:bits=auto", "bits=auto needs size=, min-sqnr= or max-latency="),
        ("int8:size=3MB", "size needs bits=auto"),
        ("int8:min-sqnr=20", "min-sqnr needs bits=auto"),
        ("int8:bits=auto:size=x", "size is 'x'"),
    ],
)
def test_int8_needs_a_budget_and_takes_none_else(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Pipeline.parse(text)
