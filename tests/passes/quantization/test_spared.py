"""Weights that lose most get a finer form, as few as a trial run shows the need for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import Dataset
from irtools.passes.quantization.int8 import Int8
from irtools.passes.quantization.spared import Search
from irtools.passes.quantization.switchboard import Switchboard
from irtools.passes.quantization.trial_run import TrialRun
from irtools.passmanager import Decision

from .conftest import Quantized, build, context, relative_error, session

HEAD = '<ir_version: 8, opset_import: ["" : 17]> '


def normal(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def few_large(*shape: int, seed: int = 2) -> np.ndarray:
    """Weights of which one in each row is much larger than the rest: 8 bits keep about 31 dB."""
    made = normal(*shape, seed=seed).reshape(shape[0], -1)
    made[:, 0] = 90
    return made.reshape(shape)


def kept(done: Quantized, outputs, **feeds: np.ndarray) -> float:
    wanted, found = (outputs(model, **feeds) for model in (done.before, done.after))
    odd = ~np.isfinite(wanted)
    assert (np.isfinite(found) | odd).all()
    found, wanted = np.where(odd, 0, found), np.where(odd, 0, wanted)
    return -20 * math.log10(max(relative_error(found, wanted), 1e-9))


def decisions(count: int) -> list[Decision]:
    return [Decision(f"d{n}", "s8", 0.0, 1.0, {"finer": False}) for n in range(count)]


def finer(decision: Decision) -> Decision | None:
    return replace(decision, data={"finer": True})


@pytest.mark.parametrize(
    ("count", "harmful", "most"),
    [(1, {0}, 1), (7, {3}, 1), (12, {1, 4, 9}, 3), (40, set(range(20)), 22), (130, {77}, 4)],
)
def test_search_changes_the_harmful_and_few_others(
    count: int, harmful: set[int], most: int
) -> None:
    """Each harmful one alone leaves 10 dB; with 130 decisions neighbours are tried together."""
    trials = 0

    def measure(given: Sequence[Decision], first: bool) -> float:
        nonlocal trials
        trials += 1
        bad = [d for d in given if int(d.subject[1:]) in harmful and not d.data["finer"]]
        return 10 - len(bad) if bad else 40.0

    search = Search(decisions(count), 5.0, finer, measure, 24.0)
    search.run()
    assert search.kept_db == 40
    changed = {int(d.subject[1:]) for d in search.best if d.data["finer"]}
    assert changed >= harmful
    assert search.changed == len(changed) <= most
    assert trials <= 1 + 48 + 12


def test_search_keeps_what_it_has_where_nothing_helps() -> None:
    search = Search(decisions(5), 3.0, finer, lambda given, first: 3.0, 24.0)
    search.run()
    assert (search.changed, [d.data["finer"] for d in search.best]) == (0, [False] * 5)


_PRODUCT = 2 * 64 * 32
_PER_BYTE = 2
_LOADING = _PER_BYTE * 4 * 64 * 32


@pytest.mark.parametrize(
    ("work", "samples", "together"),
    [
        (1e15, 16, 4),
        (3 * _PRODUCT, 6, 3),
        (1, _LOADING // _PRODUCT + 1, 1),
    ],
)
def test_work_and_no_clock_decides_on_how_many_samples_are_run(
    work: float, samples: int, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(
        HEAD + "g (float[b,64] x, float[64,32] w) => (float[b,32] y) { y = MatMul(x, w) }",
        w=normal(64, 32),
    )
    monkeypatch.setattr("irtools.passes.quantization.trial_run._WORK", work)
    monkeypatch.setattr("irtools.passes.quantization.trial_run._PER_BYTE", _PER_BYTE)
    trial = TrialRun.of(model, context("ort-cpu:isa=vnni", Dataset({"x": normal(40, 64)})))
    assert trial is not None and trial.samples == samples
    assert trial.work == together * _PRODUCT + _LOADING


def test_boxes_that_change_places_are_not_noise(quantize) -> None:
    """Scores of hundreds of boxes are nearly equal: rounding swaps rows of what is gathered."""
    model = build(
        HEAD + "g (float[b,64] x, float[64,512] w1, float[512,64] w2, float[64,256] w3, "
        "float[64,512] w4) => (float[b,20] v, float[b,20,2] y) "
        "<int64[1] k = {20}, int64[3] shape = {0, 256, 2}, int64[1] last = {2}> "
        "{ h = MatMul(x, w1) r = Relu(h) s = MatMul(r, w2) t = MatMul(s, w3) n = MatMul(s, w4) "
        "boxes = Reshape(n, shape) v, at = TopK(t, k) u = Unsqueeze(at, last) "
        "y = GatherND <batch_dims = 1> (boxes, u) }",
        w3=normal(64, 1) + normal(64, 256) / 1000,
    )
    done = quantize(model, "int8:mode=dynamic:min-size=0", x=normal(6, 64))
    assert not any("finer form" in note for note in done.result.notes)
    (note,) = (n for n in done.result.notes if "outputs jump where another place becomes" in n)
    assert "3 tensors before are judged" in note
    assert note.endswith(f"output 'y' keeps {_kept(done, 'y'):.1f} dB")


def _kept(done: Quantized, name: str) -> float:
    """Decibels of an output on the samples of a trial, four in a call."""
    parts = np.split(normal(6, 64), [4])
    a, b = (
        np.concatenate([session(m, exact=True).run([name], {"x": part})[0] for part in parts])
        for m in (done.before, done.after)
    )
    return float(20 * np.log10(np.linalg.norm(a) / np.linalg.norm(a - b)))


@pytest.mark.parametrize("trials", [1, 3])
def test_search_ends_when_its_trials_are_used_up(trials: int) -> None:
    whole = 0

    def measure(given: Sequence[Decision], first: bool) -> float:
        nonlocal whole
        whole += not first
        return 5.0 + sum(d.data["finer"] for d in given) / 100

    search = Search(decisions(40), 5.0, finer, measure, 24.0, order_trials=8, trials=trials)
    search.run()
    assert whole == trials and search.changed > 0


def test_a_product_with_infinite_rows_is_not_multiplied_in_integers(quantize, outputs) -> None:
    """One range for the whole tensor: an infinite row takes every other row with it."""
    model = build(
        HEAD + "g (float[b,64] x, float[64,32] w1, float[32,16] w2) => (float[b,16] y) "
        "{ h = MatMul(x, w1) y = MatMul(h, w2) }"
    )
    data = normal(6, 64)
    data[2] = np.inf
    given = {"x": data}
    plain = quantize(model, "int8:mode=dynamic:min-size=0:least-sqnr=none", **given)
    assert np.isnan(outputs(plain.after, **given)).all()
    done = quantize(model, "int8:mode=dynamic:min-size=0", **given)
    assert kept(done, outputs, **given) > 20
    assert "with all in 8 bits the outputs are not finite" in done.result.notes[-1]


@pytest.mark.parametrize(
    ("text", "given"),
    [
        pytest.param(
            "g (float[b,8,20] x, float[16,8,3] w1, float[4,16,3] w2) => (float[b,4,m] y) "
            "{ c = Conv(x, w1) r = Relu(c) y = Conv(r, w2) }",
            {"w1": normal(16, 8, 3), "w2": few_large(4, 16, 3)},
            id="initializer",
        ),
        pytest.param(
            "g (float[b,8,20] x, bool c, float[16,8,3] w1) => (float[b,4,m] y) { k = Conv(x, w1) "
            "r = Relu(k) y = If(c) <then_branch = t () => (y1) <float[4,16,1] v = {BRANCH}> "
            "{ y1 = Conv(r, v) }, else_branch = e () => (y2) <float[4,16,1] u = {BRANCH}> "
            "{ y2 = Conv(r, u) }> }",
            {"w1": normal(16, 8, 3)},
            id="branch",
        ),
    ],
)
def test_trials_on_one_session_measure_what_is_written(text: str, given, outputs) -> None:
    numbers = ", ".join(map(str, few_large(4, 16, 1).reshape(-1)))
    model = build(HEAD + text.replace("BRANCH", numbers), **given)
    feeds = {"x": normal(3, 8, 20)}
    if len(model.graph.inputs) == 2:
        feeds["c"] = np.array([True])
    data = Dataset(feeds) if len(feeds) == 1 else None
    data = data or Dataset({"x": feeds["x"][:1], "c": feeds["c"]}, whole=frozenset({"c"}))
    ctx = context("ort-cpu", data)
    pass_ = Int8(mode="weight-only", min_size=0, least_sqnr=None)
    plan = pass_.plan(model, ctx)
    trial = TrialRun.of(model, ctx)
    assert trial is not None and len(plan.decisions) >= 2
    board = Switchboard(model.clone(), trial)
    for chosen in (plan.decisions, plan.decisions[:1], plan.decisions[1:]):
        applied = model.clone()
        pass_.apply(applied, replace(plan, decisions=tuple(chosen)), ctx)
        written, switched = trial.sqnr_db(applied), board.measure(chosen, first=False)
        assert written is not None and written < 100
        assert switched == pytest.approx(written, abs=0.01)
    board.close()


def test_16_bits_are_a_constant_and_a_cast(quantize, outputs) -> None:
    """All of the harm is in one kernel, whose large elements leave the others no bits."""
    model = build(
        HEAD + "g (float[b,8,20] x, float[16,8,3] w1, float[4,16,3] w2) => (float[b,4,m] y) "
        "{ c = Conv(x, w1) r = Relu(c) y = Conv(r, w2) }",
        w2=few_large(4, 16, 3),
    )
    x = normal(8, 8, 20)
    done = quantize(model, "int8:mode=weight-only:min-size=0:least-sqnr=50", x=x)
    assert done.result.counters["num-stored-half"] >= 1
    assert kept(done, outputs, x=x) > 50
    halves = [n for n in done.after.graph if n.name.startswith("w2_restored")]
    assert [node.op_type for node in halves] == ["Cast"]
    assert halves[0].inputs[0].const_value.dtype == ir.DataType.FLOAT16
    assert "least-sqnr=none" in done.result.notes[-1]


def test_nothing_runs_where_nothing_may_be_drawn() -> None:
    """Without data, and without leave to draw some, a plan is made of the weights alone."""
    model = build(HEAD + "g (float[b,64] x, float[64,32] w) => (float[b,32] y) {y = MatMul(x, w)}")
    ctx = context("ort-cpu", None)
    assert ctx.draw is None

    def refuse(*_: object) -> object:
        raise AssertionError("a model was run")

    ctx.runner = refuse
    assert len(Int8(min_size=0).plan(model, ctx).decisions) == 1


def test_what_is_only_stored_says_what_keeps_more(quantize) -> None:
    model = build(
        HEAD + "g (float[b,64] x, float[64,32] w) => (float[b,32] y) { y = MatMul(x, w) }",
        w=normal(64, 32),
    )
    done = quantize(model, "int8:mode=weight-only:min-size=0", x=normal(6, 64))
    (said,) = done.result.plan.remedies
    assert said.startswith("least-sqnr=30, which stores the weights that lose most in 16 bits")
    done = quantize(model, "int8:mode=weight-only:min-size=0:least-sqnr=none", x=normal(6, 64))
    assert not done.result.plan.remedies
