"""What a Conv outputs as integers: one range must suit all that it stands for."""

from __future__ import annotations

import numpy as np
import pytest

from .conftest import build, relative_error

TEXT = "int8:mode=static"


def clipped(bounds: str) -> str:
    return f"""
<ir_version: 8, opset_import: ["" : 17]>
net (float[n,3,8,8] x, float[8,3,3,3] w, float[4,8,1,1] w2) => (float[n,4,6,6] y)
<float low = {{0.5}}, float zero = {{0.0}}, float minus = {{-2.0}}, float high = {{6.0}},
 float below = {{-0.5}}> {{
  c = Conv(x, w)
  r = {bounds}
  y = Conv(r, w2)
}}
"""


def images(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(16, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize(
    ("bounds", "fused"),
    [
        ("Clip(c, zero, high)", True),
        ("Clip(c, minus, high)", True),
        ("Clip(c, zero)", True),
        ("Clip(c, low, high)", False),
        ("Clip(c, minus, below)", False),
    ],
)
def test_only_bounds_around_zero_are_left_to_the_range(
    quantize, outputs, kernels, bounds: str, fused: bool
) -> None:
    done = quantize(build(clipped(bounds)), TEXT, target="ort-cpu:isa=vnni", x=images())
    producers = [
        node.inputs[0].producer().op_type
        for node in done.after.graph
        if node.op_type == "QuantizeLinear" and node.inputs[0].producer() is not None
    ]
    assert producers.count("Conv") == (1 if fused else 2), done.result.notes
    # Either way the Conv itself is int8: its result is quantized before or after the Clip.
    assert done.result.counters["num-quantized-conv"] == 2
    found, wanted = outputs(done.after, x=images()), outputs(done.before, x=images())
    assert relative_error(found, wanted) < 0.03
    assert kernels(done.after)["QLinearConv"] == 2


HEAD = """
<ir_version: 8, opset_import: ["" : 17]>
detector (float[n,16,8,8] x, float[12,16,1,1] w, float[12] w_b)
    => (float[n,8,64] boxes, float[n,4,64] scores)
<int64[3] shape = {0, 12, -1}, int64[2] parts = {8, 4}> {
  c = Conv(x, w, w_b)
  flat = Reshape(c, shape)
  boxes, raw = Split<axis = 1>(flat, parts)
  scores = Sigmoid(raw)
}
"""
INNER = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[n,16,8,8] x, float[12,16,1,1] w, float[12] w_b, float[4,12,1,1] w2)
    => (float[n,4,8,8] y) {
  c = Conv(x, w, w_b)
  r = Sigmoid(c)
  y = Conv(r, w2)
}
"""


def weights(small: float) -> dict[str, np.ndarray]:
    """Eight large channels and four that are `small` times as large."""
    w = np.random.default_rng(3).normal(size=(12, 16, 1, 1))
    w[8:] *= small
    return {"w": w * 40, "w_b": np.zeros(12)}


def features(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(64, 16, 8, 8)).astype(np.float32)


def test_a_head_of_unlike_channels_stays_in_float32(quantize) -> None:
    done = quantize(build(HEAD, **weights(0.001)), TEXT, target="ort-cpu:isa=vnni", x=features())
    assert done.result.counters["num-skipped-channels"] == 1
    assert any("4 of 12 channels" in note and "'w'" in note for note in done.result.notes)


@pytest.mark.parametrize(
    ("text", "small", "target"),
    [
        pytest.param(HEAD, 0.5, "ort-cpu:isa=vnni", id="like channels"),
        pytest.param(INNER, 0.001, "ort-cpu:isa=vnni", id="in the middle"),
        pytest.param(HEAD, 0.001, "openvino-cpu:isa=vnni", id="no integers are passed on"),
    ],
)
def test_other_convs_become_int8(quantize, text: str, small: float, target: str) -> None:
    done = quantize(build(text, **weights(small)), TEXT, target=target, x=features())
    assert "num-skipped-channels" not in done.result.counters
    assert done.result.counters["num-quantized-conv"] >= 1


def test_channels_that_never_change_lose_nothing(quantize) -> None:
    given = weights(0.5)
    given["w"][8:] = 0.0
    done = quantize(build(HEAD, **given), TEXT, target="ort-cpu:isa=vnni", x=features())
    assert "num-skipped-channels" not in done.result.counters
