"""A classifier, its data, and times that are given instead of taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from irtools.data import Dataset
from irtools.instruments import benchmark
from irtools.measure import timing
from irtools.measure.base import LatencyResult, Ratio
from irtools.model import Model
from irtools.search import state
from irtools.targets import Isa
from irtools.targets import isa as detection
from irtools.testing import read_model

_TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[batch, 64] x, float[64, 512] w1, float[512, 64] w2) => (float[batch, 64] logits) {
  h = MatMul (x, w1)
  a = Relu (h)
  same = Identity (a)
  logits = MatMul (same, w2)
}
"""


def _weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "w1": rng.standard_normal((64, 512)).astype(np.float32),
        "w2": (rng.standard_normal((512, 64)) / 24).astype(np.float32),
    }


@pytest.fixture
def model() -> Model:
    """x [batch, 64] -> logits [batch, 64]: two layers, and an Identity to clean up."""
    return read_model(_TEXT, _weights())


def _labelled(seed: int, samples: int) -> Dataset:
    # None below zero: around a zero point of 128 sums of 8-bit products saturate without VNNI.
    x = np.abs(np.random.default_rng(seed).standard_normal((samples, 64))).astype(np.float32)
    w1, w2 = _weights().values()
    return Dataset({"x": x}, (np.maximum(x @ w1, 0) @ w2).argmax(axis=-1), source=f"{seed}.npz")


@pytest.fixture(scope="session")
def calibration() -> Dataset:
    return _labelled(2, 64)


@pytest.fixture(scope="session")
def evaluation() -> Dataset:
    """Labels are the model's own answers, so that its accuracy is 1."""
    return _labelled(3, 1200)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, float]], list[str]]:
    """Give speeds by the beginning of the text of the last pass that was run, on a VNNI machine.

    Returns the names of what is timed from then on.
    """
    monkeypatch.setattr(detection, "_detect", lambda: Isa.VNNI)
    # The machine may lack it, and then sums of 8-bit products saturate: how close is another test.
    monkeypatch.setattr(state, "_LOW_AGREEMENT", 0.9)

    def give(speeds: Mapping[str, float]) -> list[str]:
        names: list[str] = []

        def measure(contenders: Any, feeds: Any, settings: Any, progress: Any) -> list:
            names.extend(list(contenders)[1:])
            return [_latency(name, speeds) for name in contenders]

        monkeypatch.setattr(benchmark, "measure", measure)
        monkeypatch.setattr(timing, "measure", measure)
        return names

    return give


def _latency(name: str, speeds: Mapping[str, float]) -> LatencyResult:
    ratio = next((speed for text, speed in speeds.items() if name.startswith(text)), 1.0)
    speedup = None if name == "original" else Ratio(ratio, ratio * 0.98, ratio * 1.02)
    time = 10 / ratio
    return LatencyResult(
        name, "batch=1", time, time, time, 1.0, 1 << 20, 0.1, 9, (time,) * 3, speedup
    )


@pytest.fixture(autouse=True)
def _cheap(cheap_jobs: None) -> None:
    """Whole commands run here: what they start in processes of their own is not the point."""
