"""Scales that `int8` moves by itself: where data shows a gain, and nowhere else."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import Dataset
from irtools.model.printer import print_model
from irtools.passes.quantization.int8 import Int8
from irtools.passes.quantization.smoothed import Smoothing, scales_in
from irtools.passmanager import Decision, Pipeline, Plan
from irtools.words import counted

from .conftest import build, context, relative_error

INT8 = "int8:mode=static:min-size=0"
HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'

ENCODER = (
    HEAD
    + """
g (float[b,s,64] x, float[64] wg1, float[64] wo1, float[64,64] wq, float[64,64] wk,
   float[64,64] wv, float[64,64] wp, float[64] wg2, float[64] wo2, float[64,128] wu,
   float[128] wc, float[128,64] wd, float[64] wg3, float[64] wo3) => (float[b,s,64] y) {
  n1 = LayerNormalization(x, wg1, wo1)
  q = MatMul(n1, wq)  k = MatMul(n1, wk)  v = MatMul(n1, wv)
  t = Transpose<perm=[0,2,1]>(k)  a = MatMul(q, t)  p = Softmax(a)  m = MatMul(p, v)
  o = MatMul(m, wp)  r1 = Add(o, n1)
  n2 = LayerNormalization(r1, wg2, wo2)
  u = MatMul(n2, wu)  h = Add(u, wc)  g = Gelu(h)  d = MatMul(g, wd)  r2 = Add(d, n2)
  y = LayerNormalization(r2, wg3, wo3)
}
"""
)
"""A block that normalizes after its parts, as in BERT: the residual reads the norms too."""

GATED = (
    HEAD.replace("20", "23")
    + """
g (float[b,s,64] x, float[64] wg1, float[64,96] wa, float[64,96] wu, float[96,64] wd)
=> (float[b,s,64] y) {
  n = RMSNormalization(x, wg1)  a = MatMul(n, wa)  u = MatMul(n, wu)
  s1 = Sigmoid(a)  t = Mul(a, s1)  h = Mul(t, u)  d = MatMul(h, wd)  y = Add(d, x)
}
"""
)
"""A block that normalizes before: every scale can be folded."""


LARGE = (3, 40)


def gain(large: float = 25.0, where: tuple[int, ...] = LARGE) -> np.ndarray:
    """A gain of which some channels are large."""
    found = 1 + np.abs(np.random.default_rng(5).normal(size=64)) * 0.2
    found[[*where]] *= large
    return found


def rows(large: float = 25.0, width: int = 64, where: tuple[int, ...] = LARGE) -> np.ndarray:
    """A weight that takes little of the large channels, as trained ones do."""
    found = np.random.default_rng(7).normal(size=(64, width)) / 8
    found[[*where]] /= large
    return found


def encoder(large: float = 25.0, where: tuple[int, ...] = LARGE) -> ir.Model:
    given = {name: gain(large, where) for name in ("wg1", "wg2")}
    given |= {name: rows(large, where=where) for name in ("wq", "wk", "wv")}
    given |= {"wg3": 1 / gain(large, where), "wu": rows(large, 128, where)}
    given |= {"wo1": np.zeros(64), "wo2": np.zeros(64), "wo3": np.zeros(64)}
    small = np.random.default_rng(9)
    given |= {"wp": small.normal(size=(64, 64)) / 2, "wd": small.normal(size=(128, 64)) / 2}
    return build(ENCODER, **given)


def gated(large: float = 60.0) -> ir.Model:
    return build(GATED, wg1=gain(large), wa=rows(large, 96), wu=rows(large, 96))


def samples(seed: int = 1) -> np.ndarray:
    """Draw 40 samples without rare values: unseen ones stay within the ranges."""
    x = np.random.default_rng(seed).normal(size=(40, 9, 64)).clip(-1.5, 1.5)
    return x.astype(np.float32)


def kept_db(found: np.ndarray, wanted: np.ndarray) -> float:
    return -20 * np.log10(relative_error(found, wanted))


def moved(done) -> int:
    counters = done.result.counters
    return sum(n for name, n in counters.items() if name.startswith(("num-folded", "num-scaled")))


@pytest.mark.parametrize(("model", "least"), [(encoder(), 3.0), (gated(), 3.0)])
def test_outputs_keep_more_of_samples_that_were_not_seen(
    quantize, outputs, model: ir.Model, least: float
) -> None:
    """Without float32 columns, and with them as well."""
    fresh = samples(2)
    wanted = outputs(model, x=fresh)
    for columns in ("outliers=0", "outliers=8"):
        kept = [
            kept_db(
                outputs(quantize(model, f"{INT8}:{columns}:{way}", x=samples()).after, x=fresh),
                wanted,
            )
            for way in ("smooth=false", "smooth=auto")
        ]
        assert kept[1] > kept[0] + least


def test_what_was_done_is_said(quantize) -> None:
    done = quantize(encoder(), INT8, x=samples())
    muls = done.result.counters["num-scaled-mul"]
    (note,) = (n for n in done.result.notes if n.startswith("smoothing "))
    assert note.startswith(f"smoothing {counted(moved(done), 'input')} of products with {muls} Mul")
    assert "dB with it" in note and note.endswith("dB without (10 samples)")
    assert done.operators["Mul"] == muls
    few = quantize(encoder(), INT8, x=samples()[:7])
    (note,) = (n for n in few.result.notes if n.startswith("smoothing "))
    assert note.endswith("dB without (7 samples that ranges come from, too)")


def test_no_mul_where_scales_can_be_folded(quantize) -> None:
    model = gated()
    done = quantize(model, INT8, x=samples())
    assert done.result.counters["num-folded-norm"] == 1
    assert "num-scaled-mul" not in done.result.counters
    assert done.operators["Mul"] == 2


def test_channels_leave_the_integers_only_where_scales_do_not_suffice(quantize) -> None:
    model = encoder(16.0, (3,))  # One in 64 may leave.
    apart = quantize(model, f"{INT8}:smooth=false", x=samples())
    smoothed = quantize(model, INT8, x=samples())
    assert apart.result.counters["num-outlier-channels"] > 0
    assert "num-outlier-channels" not in smoothed.result.counters


@pytest.mark.parametrize("model", [encoder(1.0), gated(1.0)], ids=["post-norm", "pre-norm"])
def test_models_with_nothing_to_gain_stay_as_they_were(quantize, model: ir.Model) -> None:
    done = quantize(model, INT8, x=samples())
    without = quantize(model, f"{INT8}:smooth=false", x=samples())
    assert moved(done) == 0
    assert print_model(done.after) == print_model(without.after)


@pytest.mark.parametrize("exact", [True, False])
def test_moved_scales_change_nothing_but_last_digits(outputs, *, exact: bool) -> None:
    model = encoder()
    (pass_,) = Pipeline(INT8)
    assert isinstance(pass_, Int8)
    ctx = context("ort-cpu:isa=vnni", Dataset({"x": samples()}))
    plan = pass_.plan(model, ctx)
    scales, _ = scales_in(plan)
    after = model.clone()
    result = pass_.apply(after, plan.prefix(len(scales)), ctx)
    assert result.modified and not any("quantized" in name for name in result.counters)
    x = samples(2)
    assert kept_db(outputs(after, exact=exact, x=x), outputs(model, x=x)) > 110


def test_scales_come_first_and_any_prefix_is_a_plan(outputs) -> None:
    model = encoder()
    (pass_,) = Pipeline(INT8)
    assert isinstance(pass_, Int8)
    ctx = context("ort-cpu:isa=vnni", Dataset({"x": samples()}))
    plan = pass_.plan(model, ctx)
    scales, weights = scales_in(plan)
    assert plan.decisions == (*scales, *weights.decisions)
    assert len(scales) == 2 and len(weights) == 6
    assert all(decision.cost == 0 for decision in scales)
    for length in range(len(plan) + 1):
        after = model.clone()
        result = pass_.apply(after, plan.prefix(length), ctx)
        assert result.modified == (length > 0)
        outputs(after, x=samples())


def test_a_stored_plan_is_replayed_without_data(quantize) -> None:
    model = encoder()
    done = quantize(model, INT8, x=samples())
    assert done.result.plan is not None
    after = model.clone()
    (pass_,) = Pipeline(INT8)
    assert isinstance(pass_, Int8)
    pass_.apply(after, Plan.from_json(done.result.plan.to_json()), context("ort-cpu", None))
    assert print_model(after) == print_model(done.after)


def test_weights_in_a_finer_form_keep_the_scales(quantize) -> None:
    done = quantize(encoder(), f"{INT8}:least-sqnr=45:outliers=0", x=samples())
    assert done.result.plan is not None
    scales, _ = scales_in(done.result.plan)
    assert any("in a finer form" in note for note in done.result.notes)
    assert done.result.plan.decisions[: len(scales)] == scales != ()


@pytest.mark.openvino
@pytest.mark.parametrize("model", [encoder(), gated()], ids=["post-norm", "pre-norm"])
def test_on_openvino(quantize, outputs, openvino_layers, model: ir.Model) -> None:
    done = quantize(model, INT8, "openvino-cpu:isa=avx2", x=samples())
    x = samples(2)
    found, layers = openvino_layers(done.after, x=x)
    assert moved(done) and sum(n for name, n in layers.items() if "[u8]" in name) >= 3
    assert kept_db(found, outputs(model, x=x)) > 22


def test_nothing_is_smoothed_twice(quantize) -> None:
    """After the pass `smooth` there is nothing left to gain."""
    before = encoder()
    smoothed = quantize(before, "smooth", x=samples()).after
    for model in (smoothed, quantize(smoothed, "smooth", x=samples()).after):
        done = quantize(model, INT8, x=samples())
        assert moved(done) == 0
        assert done.operators["Mul"] == sum(n.op_type == "Mul" for n in smoothed.graph)
    again = quantize(quantize(before, INT8, x=samples()).after, INT8, x=samples())
    assert not again.result.modified


def test_drawn_data_moves_no_scale_unless_it_is_asked_for() -> None:
    model, done = encoder(), {}
    for way in ("auto", "true"):
        after = model.clone()
        ctx = context("ort-cpu:isa=vnni", Dataset({"x": samples()}, synthetic=True))
        (pass_,) = Pipeline(f"{INT8}:smooth={way}")
        done[way] = pass_.run(after, ctx)
    assert not any("scaled" in name for name in done["auto"].counters)
    assert done["true"].counters["num-scaled-mul"] > 0
    assert any(note.startswith("ranges come from synthetic data") for note in done["true"].notes)


@pytest.mark.parametrize(
    ("model", "options", "reason"),
    [
        (gated(), ":exclude=w[au]", "because none of their products is rounded"),
        (encoder(1.0), "", "because there is too little to gain"),
    ],
)
def test_asked_for_in_vain(quantize, model: ir.Model, options: str, reason: str) -> None:
    done = quantize(model, f"{INT8}:smooth=true{options}", x=samples())
    assert "num-folded-norm" not in done.result.counters
    assert moved(done) or any(
        note.startswith("no scale moved: ") and reason in note for note in done.result.notes
    )


def test_what_is_not_run_is_decided_by_prediction(quantize, monkeypatch) -> None:
    monkeypatch.setattr("irtools.passes.quantization.trial_run.largest_tried", lambda: 0)
    done = quantize(encoder(), INT8, x=samples())
    assert moved(done) == 2
    assert any("predicted for all products together" in note for note in done.result.notes)
    done = quantize(encoder(1.0), INT8, x=samples())
    assert moved(done) == 0


def test_very_large_models_are_left_to_the_caller(quantize, monkeypatch) -> None:
    monkeypatch.setattr("irtools.passes.quantization.smoothed.largest_tried", lambda: 0)
    done = quantize(encoder(), INT8, x=samples())
    assert moved(done) == 0 and done.result.plan is not None
    assert done.result.plan.remedies[0].startswith("smooth=true, which ")
    assert moved(quantize(encoder(), f"{INT8}:smooth=true", x=samples())) == 2


@pytest.mark.parametrize("mode", ["dynamic", "weight-only"])
def test_other_modes_have_no_ranges_to_spare(quantize, mode: str) -> None:
    done = quantize(encoder(), f"int8:mode={mode}:min-size=0:smooth=true", x=samples())
    assert moved(done) == 0
    assert any(note.startswith("smooth=true moves no scale") for note in done.result.notes)


def test_channels_that_are_always_zero(quantize, outputs) -> None:
    model = gated()
    dead = gain(60.0)
    dead[-5:] = 0
    model.graph.initializers["wg1"].const_value = ir.Tensor(dead.astype(np.float32), name="wg1")
    done = quantize(model, INT8, x=samples())
    assert moved(done)
    x = samples(2)
    assert kept_db(outputs(done.after, x=x), outputs(model, x=x)) > 25


def test_products_that_data_never_reaches(quantize) -> None:
    done = quantize(gated(), f"{INT8}:smooth=true", x=np.zeros_like(samples()))
    assert moved(done) == 0
    assert any("never left zero" in note for note in done.result.notes)


SHARED_NORM = (
    HEAD
    + """
g (float[b,s,64] x, float[b,s,64] z, float[64] wg1, float[64] wo1, float[64,64] w1,
   float[64,64] w2) => (float[b,s,64] y, float[b,s,64] n) {
  m = LayerNormalization(x, wg1, wo1)  h = MatMul(m, w1)
  n = LayerNormalization(z, wg1, wo1)  k = MatMul(n, w2)  y = Add(h, k)
}
"""
)
TIED = (
    HEAD
    + """
g (int64[b,s] x, float[100,64] w_table, float[64] wg1, float[64] wo1) => (float[b,s,100] y) {
  e = Gather(w_table, x)  n = LayerNormalization(e, wg1, wo1)  t = Transpose(w_table)
  y = MatMul(n, t)
}
"""
)


def test_a_norm_whose_gain_another_norm_reads(quantize, outputs) -> None:
    """The other one shows its channels as an output: its gain stays, in a tensor of its own."""
    model = build(SHARED_NORM, wg1=gain(), wo1=np.zeros(64), w1=rows(), w2=rows())
    feeds = {"x": samples(), "z": samples(3)}
    done = quantize(model, f"{INT8}:smooth=true", **feeds)
    assert done.result.counters["num-folded-norm"] == 1
    assert kept_db(outputs(done.after, **feeds), outputs(model, **feeds)) > 25


def test_a_table_that_is_looked_up_keeps_its_numbers(quantize) -> None:
    ids = np.random.default_rng(0).integers(0, 100, (8, 9))
    done = quantize(build(TIED, wg1=gain(), wo1=np.zeros(64)), f"{INT8}:smooth=true", x=ids)
    assert moved(done) == 0
    (note,) = (n for n in done.result.notes if n.startswith("no scale moved: "))
    assert "another node reads the same weight in another way" in note


class _Known:
    """Trials whose outcome is known."""

    told = "16 samples"

    def __init__(self, kept: dict[str, float]) -> None:
        self._kept = kept

    def kept_db(self, plan: Plan) -> float:
        return self._kept[plan.pass_text]


@pytest.mark.parametrize("costly", [{"form": "token-wise"}, {"outliers": [3]}])
@pytest.mark.parametrize(
    ("plain_costs", "scaled_costs", "more_db", "moves"),
    [
        (True, False, -0.4, True),  # Scales are nearly as good, and cost next to nothing.
        (True, False, -0.6, False),
        (False, False, 0.4, False),  # Not worth it.
        (False, False, 0.6, True),
        (True, True, 0.4, False),
        (False, True, 0.4, False),
    ],
)
def test_scales_are_preferred_to_what_takes_longer(
    costly: dict[str, object],
    plain_costs: bool,
    scaled_costs: bool,
    more_db: float,
    moves: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def plan(name: str, costs: bool) -> Plan:
        return Plan(name, (Decision("w", "8 bits", data=costly if costs else {"form": "static"}),))

    plans = {"plain": plan("plain", plain_costs), "scaled": plan("scaled", scaled_costs)}
    trials = _Known({"plain": 24.0, "scaled": 24.0 + more_db})
    plan_of = plans.__getitem__
    smoothing = Smoothing(False, 22.0, trials, None, plan_of, plan_of, None, "int8")
    monkeypatch.setattr(Smoothing, "_scaled_for_tokens", lambda smoothing, plain, *same: same)
    monkeypatch.setattr(Smoothing, "_with", lambda smoothing, plain, sites: "scaled")
    chosen, made = smoothing._better("plain", [])
    assert chosen == made.pass_text == ("scaled" if moves else "plain")
    assert made.notes[-1].startswith("smoothing" if moves else "channels keep their scales")


@pytest.mark.parametrize(
    ("products", "more_db", "moves"),
    [
        (2, 0.6, True),
        (2, 0.4, False),  # The same time must pay.
        (1, -0.4, True),  # Less time for nearly as much.
        (3, 5.0, False),  # No more of it than without scales.
    ],
)
def test_ranges_for_each_token_that_were_needed_are_tried_with_scales_as_well(
    products: int, more_db: float, moves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan(name: str, count: int) -> Plan:
        forms = ["token-wise"] * count + ["static"] * (3 - count)
        return Plan(name, tuple(Decision("w", "8 bits", data={"form": form}) for form in forms))

    plans = {"plain": plan("plain", 2), "scaled": plan("scaled", 0)}
    trials = _Known({"plain": 22.0, "scaled": 21.3, "tokens": 22.0 + more_db})
    again = plan("tokens", products)
    smoothing = Smoothing(
        False, 22.0, trials, None, plans.__getitem__, {"scaled": again}.__getitem__, None, "int8"
    )
    monkeypatch.setattr(Smoothing, "_scaled_for_tokens", lambda smoothing, plain, *same: same)
    monkeypatch.setattr(Smoothing, "_with", lambda smoothing, plain, sites: "scaled")
    chosen, made = smoothing._better("plain", [])
    assert (chosen, made.pass_text) == (("scaled", "tokens") if moves else ("plain", "plain"))


PRODUCT = """
<ir_version: 10, opset_import: ["" : 21]>
g (float[n,8,64] x, float[64,96] w) => (float[n,8,96] y) { y = MatMul (x, w) }
"""


def product() -> ir.Model:
    return build(PRODUCT, w=np.random.default_rng(0).normal(size=(64, 96)) / 8)


def rare(share: float, seed: int = 1) -> np.ndarray:
    """Draw texts of eight tokens; eight channels are 100 times as large in a share of these."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(64, 8, 64))
    x[..., :8] *= np.where(rng.random((64, 8, 8)) < share, 100, 1)
    return x.astype(np.float32)


def token_notes(done) -> list[str]:
    return [note for note in done.result.notes if "chosen for the ranges of tokens" in note]


STATIC = f"{INT8}:outliers=0:method=rtn"


@pytest.mark.parametrize(
    "target", ["ort-cpu:isa=vnni", pytest.param("openvino-cpu", marks=pytest.mark.openvino)]
)
def test_ranges_of_tokens_get_scales_of_their_own(
    quantize, outputs, openvino_layers, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = product(), rare(0.005, seed=2)
    done = quantize(model, STATIC, target, x=rare(0.005))
    (note,) = token_notes(done)
    assert note.startswith("scales of 1 input chosen for the ranges of tokens: ")
    assert [node.op_type for node in done.after.graph if node.op_type != "Constant"] == [
        *("Mul", "Abs", "ReduceMax", "Max", "Div", "QuantizeLinear", "DequantizeLinear"),
        *("DequantizeLinear", "MatMul", "Mul"),
    ]
    run = outputs if target.startswith("ort") else lambda m, x: openvino_layers(m, x=x)[0]
    wanted = outputs(model, x=x)
    assert kept_db(run(done.after, x=x), wanted) > 37
    monkeypatch.setattr(Smoothing, "_scaled_for_tokens", lambda smoothing, plain, *same: same)
    without = quantize(model, STATIC, target, x=rare(0.005))
    assert not token_notes(without)
    assert kept_db(run(without.after, x=x), wanted) < 36


def test_scales_stay_as_they_are_where_others_gain_too_little(quantize) -> None:
    done = quantize(product(), STATIC, "ort-cpu:isa=vnni", x=rare(0.002))
    assert any("1 product with a range for each token" in note for note in done.result.notes)
    assert not token_notes(done) and moved(done) == 0


def test_scales_for_tokens_take_no_time(quantize) -> None:
    """The product with a fixed range keeps it, and an input without a Mul gets none."""
    text = PRODUCT.replace("x, float", "x, float[n,8,64] z, float[64,96] w_2, float")
    both = "a = MatMul (x, w)  b = MatMul (z, w_2)  y = Add (a, b)"
    rng = np.random.default_rng(4)
    given = {"w": rng.normal(size=(64, 96)) / 8, "w_2": rng.choice([-0.1, 0.1], (64, 96))}
    model = build(text.replace("y = MatMul (x, w)", both), **given)
    z = (rng.uniform(-1, 1, (64, 8, 64)) * np.exp(rng.normal(size=64) / 2)).astype(np.float32)
    done = quantize(model, STATIC, "ort-cpu:isa=vnni", x=rare(0.005), z=z)
    assert token_notes(done)
    plan = done.result.plan
    assert plan is not None
    scales, weights = scales_in(plan)
    assert {d.data["weight"]: d.data["form"] for d in weights.decisions} == {
        "w": "token-wise",
        "w_2": "static",
    }
    assert done.result.counters["num-scaled-mul"] == len(scales) == 1
