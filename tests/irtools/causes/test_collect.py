"""What is measured of models: ranges, exits, padding, answers."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.why_cases import CASES, Pair
from benchmarks.why_graphs import read, weights
from irtools.analysis.pairing import pair_models
from irtools.causes.collect.answers import chosen_classes, padding_use
from irtools.causes.collect.exits import exit_uses
from irtools.causes.collect.grids import grid_uses
from irtools.data import Dataset
from irtools.targets import RunnerOptions, Target, find_target

ONE = RunnerOptions(threads=1)


@pytest.fixture
def target() -> Target:
    """ONNX Runtime with an instruction set that sums exactly."""
    return find_target("ort-cpu:isa=vnni")


def grids_of(pair: Pair, target: Target) -> list[tuple[float, float, float]]:
    """Return clip noise, channel noise and channel peak of each grid."""
    assert pair.data is not None
    pairing = pair_models(pair.first.ir, pair.second.ir)
    uses = grid_uses(pair.second, pairing, pair.data, pair.calibration, target, 1)
    return [(use.clip_noise, use.channel_noise, use.channel_peak) for use in uses]


def test_values_outside_a_grid_are_noise(target: Target) -> None:
    pair = CASES["wrong calibration data"](24)
    assert pair.data is not None
    pairing = pair_models(pair.first.ir, pair.second.ir)
    uses = grid_uses(pair.second, pairing, pair.data, pair.calibration, target, 1)
    x = pair.data.feeds["x"].astype(np.float64)
    first = uses[0]
    step = (first.high - first.low) / 255
    clipped = np.square(x - np.clip(x, first.low - step / 2, first.high + step / 2)).sum()
    assert first.tensor == "x" and first.module == "layer.0"
    assert first.clip_noise == pytest.approx(clipped / np.square(x).sum(), rel=0.02)
    assert first.calibrated is not None
    assert first.calibrated[1] == pytest.approx(first.high, rel=0.02)


def test_a_large_channel_costs_the_others_their_steps(target: Target) -> None:
    (_, even, _), (clip, uneven, peak), *_ = grids_of(CASES["outlier channel"](24), target)
    assert peak > 12 and uneven > 10 * even and clip == 0


def test_a_large_channel_that_the_product_leaves_out_costs_nothing(target: Target) -> None:
    pair = CASES["outlier channel"](24)
    stored = pair.second.ir.graph.initializers["w1_q"]
    assert stored.const_value is not None
    array = stored.const_value.numpy().copy()
    array[5] = 0
    import onnx_ir as ir

    stored.const_value = ir.tensor(array, name="w1_q")
    (_, clip_noise, peak) = grids_of(pair, target)[1]
    assert peak < 12 and clip_noise < 0.5


def test_exits_inside_exits_are_counted(target: Target) -> None:
    arrays = {
        "h": weights(1, 4)[0],
        "all": np.array(-1e9, np.float32),
        "some": np.array(0.0, np.float32),
    }
    deepest = (
        "If(inner) <then_branch = c () => (float[1, 4] d) { d = MatMul(b, h) e = Relu(d) }, "
        "else_branch = k () => (float[1, 4] f) { f = Identity(b) }>"
    ).replace("e = Relu(d) ", "")
    text = (
        "s = ReduceSum<keepdims = 0>(x) outer = Greater(s, all) "
        "[first/If] y = If(outer) <then_branch = t () => (float[1, 4] g) { b = MatMul(x, h) "
        f"inner = Greater(s, some) [second/If] g = {deepest} }}, "
        "else_branch = q () => (float[1, 4] o) { o = Identity(x) }>"
    )
    model = read("exits", "float[1, 4] x", "float[1, 4] y", [text], arrays)
    x = np.random.default_rng(3).standard_normal((20, 4)).astype(np.float32)
    uses = {use.node: use for use in exit_uses(model, Dataset({"x": x}), target, ONE)}
    assert (uses["first/If"].left, uses["first/If"].samples) == (0, 20)
    assert (uses["second/If"].left, uses["second/If"].samples) == (int((x.sum(1) <= 0).sum()), 20)
    assert "first/If" not in uses["first/If"].nodes and "second/If" in uses["first/If"].nodes


def test_padding_changes_a_model_that_does_not_mask_it(target: Target) -> None:
    pair = CASES["padding not masked"](24)
    assert pair.data is not None
    found = padding_use(pair.first, pair.second, pair.data, target, ONE)
    assert found is not None
    assert found.first_db > 100 and found.second_db < 30 and found.samples == 8


def test_data_without_a_mask_says_nothing_of_padding(target: Target) -> None:
    pair = CASES["classes in another order"](24)
    assert pair.data is not None
    assert padding_use(pair.first, pair.second, pair.data, target, ONE) is None


def test_classes_are_those_of_the_largest_score(target: Target) -> None:
    pair = CASES["classes in another order"](24)
    assert pair.data is not None and pair.data.labels is not None
    found = chosen_classes(pair.first, pair.second, pair.data, target, ONE)
    assert found is not None and found.classes == 5
    assert found.first == found.labels == tuple(pair.data.labels)
    order = {2: 0, 0: 1, 1: 2, 4: 3, 3: 4}
    assert found.second == tuple(order[one] for one in found.first)
