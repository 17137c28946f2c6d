"""What int8 takes is decided on calibration samples that nothing was fitted to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import Dataset, SyntheticSettings, synthesize
from irtools.model import Model
from irtools.passes.quantization.held_out import hold_out
from irtools.passes.quantization.spared import near_db
from irtools.passes.quantization.trial_run import TrialRun
from irtools.passmanager import PassContext

from .conftest import build, context, relative_error

VNNI = "ort-cpu:isa=vnni"
PLAIN = "int8:mode=static:min-size=0:smooth=false:method=rtn:outliers=0:least-sqnr=none"
LAYER = """
<ir_version: 10, opset_import: ["" : 21]>
g (float[b,96] x, float[96,40] w) => (float[b,40] y) { y = MatMul(x, w) }
"""


def numbered(count: int, **more: object) -> PassContext:
    """A context with samples that hold their own places."""
    x = np.arange(count, dtype=np.float32).reshape(-1, 1)
    return context(VNNI, Dataset({"x": x}, **more))


@pytest.mark.parametrize(
    ("count", "held"),
    [
        (8, [2, 6]),
        (16, [2, 6, 10, 14]),
        (17, [2, 6, 10, 14]),
        (128, [*range(4, 128, 8)]),
    ],
)
def test_a_quarter_spread_over_the_data_and_16_at_most(count: int, held: list[int]) -> None:
    ctx = hold_out(numbered(count))
    assert ctx.unseen is not None and ctx.calibration is not None
    assert ctx.unseen.feeds["x"].ravel().tolist() == held
    assert ctx.calibration.feeds["x"].ravel().tolist() == [
        at for at in range(count) if at not in held
    ]
    assert hold_out(ctx) is ctx


@pytest.mark.parametrize("ctx", [numbered(7), numbered(64, synthetic=True), context(VNNI, None)])
def test_none_of_a_few_or_of_drawn_samples(ctx: PassContext) -> None:
    assert hold_out(ctx) is ctx


@pytest.mark.parametrize(
    ("count", "held"), [(15, []), (16, [8, 9, 10, 11]), (64, [8, 9, 10, 11, 24, 25, 26, 27])]
)
def test_whole_batches_of_a_model_with_a_fixed_size(count: int, held: list[int]) -> None:
    ctx = hold_out(numbered(count, fixed_batch=4))
    unseen = [] if ctx.unseen is None else ctx.unseen.feeds["x"].ravel().tolist()
    assert unseen[: len(held)] == held and bool(unseen) == bool(held) and len(unseen) <= 16


def step_of_input(model: ir.Model) -> float:
    (node,) = (n for n in model.graph if n.op_type == "QuantizeLinear")
    scale = node.inputs[1]
    assert scale is not None and scale.const_value is not None
    return float(scale.const_value.numpy())


def test_ranges_come_from_the_others(quantize) -> None:
    x = np.random.default_rng(1).uniform(-1, 1, (16, 96)).astype(np.float32)
    held = [2, 6, 10, 14]
    x[held] *= 3
    rest = np.delete(x, held, axis=0)
    done = quantize(build(LAYER), PLAIN, VNNI, x=x)
    assert step_of_input(done.after) == pytest.approx(np.ptp(rest) / 255, rel=1e-5)
    few = quantize(build(LAYER), PLAIN, VNNI, x=x[:7])
    assert step_of_input(few.after) == pytest.approx(np.ptp(x[:7]) / 255, rel=1e-5)


def test_decisions_are_judged_by_them(quantize, outputs) -> None:
    """They leave the ranges here, so that the weight is stored instead of multiplied."""
    x = np.random.default_rng(1).uniform(-1, 1, (16, 96)).astype(np.float32)
    held = [2, 6, 10, 14]
    x[held] *= 5
    model = build(LAYER)
    fixed = quantize(model, PLAIN, VNNI, x=x).after
    error = relative_error(outputs(fixed, x=x[held]), outputs(model, x=x[held]))
    lost = f"with all in 8 bits the outputs keep {-20 * np.log10(error):.1f} dB (4 samples)"
    done = quantize(model, PLAIN.replace("none", "20"), VNNI, x=x)
    assert any(lost in note for note in done.result.notes)
    few = quantize(model, PLAIN.replace("none", "20"), VNNI, x=x[:7])
    assert not any("in a finer form" in note for note in few.result.notes)


def test_drawn_samples_that_judge_are_neither_those_of_ranges_nor_those_of_reports() -> None:
    model = Model(build(LAYER))
    ctx = replace(PassContext.for_model(model, VNNI), draw=lambda m, s: synthesize(m, s))
    trial = TrialRun.of(model.ir, ctx)
    assert trial is not None and ctx.calibrating is not None
    of = {
        "trials": np.concatenate([feeds["x"] for feeds in trial.feeds]),
        "ranges": ctx.calibrating.get(model.ir).feeds["x"],
        "reports": synthesize(model, SyntheticSettings(seed=ctx.seed)).feeds["x"],
    }
    rows = [row.tobytes() for found in of.values() for row in found]
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize(
    ("samples", "drawn", "more"),
    [(16, False, 0.5), (64, False, 0.5), (4, False, 1.0), (4, True, 2.0)],
)
def test_more_is_asked_of_fewer_samples(samples: int, drawn: bool, more: float) -> None:
    trial = TrialRun([], [], drawn, samples, frozenset(), 0, lambda model, options: None)
    assert near_db(trial) == pytest.approx(more)
