"""How many channels leave the integer product is decided by what calibration data shows."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.passes.quantization.remedy import Candidate, choose, least_gain

from .conftest import build

MODEL = """
<ir_version: 10, opset_import: ["" : 20]>
layers (float[batch,128] x, float[128,128] w1, float[128,128] w2, float[128,128] w3,
        float[128,128] w4, float[128,128] w5, float[128,128] w6, float[128,8] w7)
    => (float[batch,8] y) {
  a1 = MatMul(x, w1)
  a2 = MatMul(a1, w2)
  a3 = MatMul(a2, w3)
  a4 = MatMul(a3, w4)
  a5 = MatMul(a4, w5)
  a6 = MatMul(a5, w6)
  y = MatMul(a6, w7)
}
"""
TEXT = "int8:mode=static:min-size=0:smooth=false"


@pytest.mark.parametrize(
    ("kept", "gain"), [(12.0, 0.5), (25.9, 0.5), (26.0, 1.0), (29.9, 1.0), (30.0, None)]
)
def test_what_costs_no_time_is_tried_up_to_30_db(kept: float, gain: float | None) -> None:
    assert least_gain(kept) == gain


def candidates(*counts: int) -> list[Candidate]:
    """One candidate per number of activations whose channels leave, at 18, 20, 22 ... dB."""
    return [
        Candidate(18.0 + 2 * n, {ir.val(f"x{k}"): (0,) for k in range(count)})
        for n, count in enumerate(counts)
    ]


@pytest.mark.parametrize(
    ("counts", "kept", "expected", "measured"),
    [
        pytest.param((0, 2, 4), {0: 30.0}, 0, [0], id="no need"),
        pytest.param((0, 2, 6, 9), {0: 23.0, 6: 28.0}, 6, [0, 6], id="the largest cheap one"),
        pytest.param((0, 2, 6, 9), {0: 23.0, 6: 23.2}, 0, [0, 6], id="no gain"),
        pytest.param(
            (0, 6, 9, 20, 30),
            {0: 12.0, 6: 15.0, 9: 19.0, 20: 21.0},
            20,
            [0, 6, 9, 20],
            id="as many as 20 dB take",
        ),
        pytest.param((0, 9), {0: 21.0}, 0, [0], id="enough, and the rest is costly"),
        pytest.param((3, 3, 3), {3: 15.0}, 3, [3], id="nothing else to try"),
    ],
)
def test_choice(
    counts: tuple[int, ...], kept: dict[int, float], expected: int, measured: list[int]
) -> None:
    asked: list[int] = []

    def measure(candidate: Candidate) -> float:
        asked.append(len(candidate.outliers))
        return kept[asked[-1]]

    chosen, tried = choose(candidates(*counts), 36, measure)
    assert len(chosen.outliers) == expected
    assert asked == measured == [len(trial.candidate.outliers) for trial in tried]


def activations(spread: float) -> np.ndarray:
    """[24, 128] in which two channels are larger than the others, by less than 18 dB demand."""
    x = np.random.default_rng(0).normal(size=(24, 128)).clip(-2, 2)
    x[:, [5, 70]] *= spread
    return x.astype(np.float32)


@pytest.fixture
def decoupled() -> dict[str, np.ndarray]:
    """Weights whose outlying rows say little, so that the other channels decide the outputs."""
    rng = np.random.default_rng(1)
    made = {f"w{n}": np.linalg.qr(rng.normal(size=(128, 128)))[0] for n in range(1, 7)}
    made["w1"][[5, 70]] = 0.0
    return {**made, "w7": rng.normal(size=(128, 8))}


def test_channels_leave_by_themselves_where_the_outputs_need_it(quantize, decoupled) -> None:
    done = quantize(build(MODEL, **decoupled), TEXT, x=activations(16.0))
    fixed = quantize(build(MODEL, **decoupled), f"{TEXT}:outlier-floor=18", x=activations(16.0))
    assert "num-outlier-channels" not in fixed.result.counters
    assert done.result.counters["num-outlier-channels"] == 2
    (note,) = (n for n in done.result.notes if n.startswith("outlier-floor="))
    assert "by calibration data" in note and "dB at 18" in note


def test_nothing_leaves_where_the_outputs_are_close(quantize, decoupled) -> None:
    done = quantize(build(MODEL, **decoupled), TEXT, x=activations(2.2))
    assert "num-outlier-channels" not in done.result.counters
    assert not any("outlier-floor" in note for note in done.result.notes)


def test_a_plan_with_more_channels_is_replayed_as_it_is(quantize, decoupled) -> None:
    done = quantize(build(MODEL, **decoupled), TEXT, x=activations(16.0))
    assert done.result.plan is not None
    apart = [d for d in done.result.plan.decisions if d.data.get("outliers")]
    assert len(apart) == 1 and apart[0].data["outliers"] == [5, 70]
