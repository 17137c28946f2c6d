"""Inputs without axes: one number per sample, and samples one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import load_dataset, required_inputs
from irtools.data.batches import plan_batches
from irtools.errors import DataError
from irtools.measure.base import BenchSettings
from irtools.measure.shapes import bench_feeds
from irtools.model import Model

_X = np.arange(12, dtype=np.float32).reshape(3, 4)
_T = np.array([0.5, 1.0, 2.0], np.float32)


@pytest.fixture
def model() -> Model:
    return Model(
        ir.from_onnx_text(
            '<ir_version: 10, opset_import: ["" : 20]> '
            "g (float[n,4] x, float temperature) => (float[n,4] y) { y = Div (x, temperature) }"
        )
    )


def test_samples_go_one_by_one(model: Model, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=_X, temperature=_T)
    data = load_dataset(str(tmp_path / "d.npz"), model)
    assert (len(data), data.fixed_batch, data.whole) == (3, 1, {"temperature"})
    plan = plan_batches(data, required_inputs(model))
    for batches in ([*data.batches(8)], [batch.feeds for batch in plan.batches(8)]):
        assert [batch["x"].shape for batch in batches] == [(1, 4)] * 3
        assert [batch["temperature"].shape for batch in batches] == [()] * 3
        assert [float(batch["temperature"]) for batch in batches] == _T.tolist()


def test_they_are_timed_with_real_samples(model: Model, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=_X, temperature=_T)
    data = load_dataset(str(tmp_path / "d.npz"), model)
    ((label, feeds),) = bench_feeds(model, BenchSettings(batch=(2,)), data).items()
    assert label == "batch=2" and feeds["temperature"].shape == ()


def test_other_shapes_are_refused(model: Model, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=_X, temperature=_T[:, None])
    with pytest.raises(DataError, match=r"temperature float32\[\] \(one number per sample"):
        load_dataset(str(tmp_path / "d.npz"), model)
