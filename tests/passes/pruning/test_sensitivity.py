from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import Dataset
from irtools.passes.pruning.candidates import levels_of
from irtools.passes.pruning.sensitivity import OutputProbe, divergence


def test_equal_outputs_do_not_diverge() -> None:
    outputs = {"logits": np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)}
    assert divergence(outputs, outputs) == 0.0


def test_logits_are_compared_as_distributions() -> None:
    a = np.array([[0.0, 0.0]], np.float32)
    b = np.array([[np.log(3.0), 0.0]], np.float32)
    expected = 0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25)
    assert divergence({"y": a}, {"y": b}) == pytest.approx(expected, rel=1e-6)
    assert divergence({"y": a}, {"y": a + 7}) == pytest.approx(0.0, abs=1e-9)


def test_other_outputs_by_relative_squared_error() -> None:
    a = np.ones((2, 3, 4), np.float32)
    assert divergence({"y": a}, {"y": 0.5 * a}) == pytest.approx(0.25)
    assert divergence({"ids": np.ones((2, 2), np.int64)}, {"ids": np.zeros((2, 2), np.int64)}) == 0


@pytest.mark.parametrize(
    ("units", "round_to", "min_width", "levels"),
    [
        (8, 1, 1, [0, 1, 2, 3, 4, 5, 6, 7]),
        (10, 4, 1, [0, 2, 6]),
        (8, 4, 5, [0]),
        (6, 1, 6, [0]),
    ],
)
def test_levels(units: int, round_to: int, min_width: int, levels: list[int]) -> None:
    assert list(levels_of(units, round_to, min_width)) == levels


def test_probe_sees_the_model_change(build, random_feeds, data_context) -> None:
    model = build("ffn")
    feeds = random_feeds(model, batch=12)
    ctx = data_context(feeds)
    probe = OutputProbe.of(model, Dataset(feeds), ctx, samples=10)
    assert len(probe.data) == 10
    assert probe.distance(model) == 0.0
    assert probe.distance(build("ffn", 1)) > 0.1


def test_sizes_that_the_data_decides_are_not_compared(data_context) -> None:
    """Boxes that were found: what they are chosen from has the same size in both models."""
    rng = np.random.default_rng(0)
    text = """<ir_version: 10, opset_import: ["" : 20]>
    g (float[n, 4] x) => (float[found] y, float[n, 4] other) <float[4] w = {1, 1, 1, 1}> {
        z = Mul (x, w)
        zero = Constant <value = float {0}> ()
        over = Greater (z, zero)
        minus = Constant <value_ints = [-1]> ()
        flat = Reshape (z, minus)
        which = Reshape (over, minus)
        y = Compress (flat, which)
        other = Neg (x)
    }"""
    model, scaled = ir.from_onnx_text(text), ir.from_onnx_text(text)
    weight = ir.tensor(np.array([1, -1, 1, 1], np.float32), name="w")
    scaled.graph.initializers["w"].const_value = weight
    feeds = {"x": rng.standard_normal((8, 4)).astype(np.float32)}
    probe = OutputProbe.of(model, Dataset(feeds), data_context(feeds), samples=8)
    assert probe.names is not None and "other" in probe.names and "y" not in probe.names
    assert probe.distance(model) == 0.0
    assert probe.distance(scaled) > 0.1
