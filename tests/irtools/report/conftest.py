"""Reports with every kind of figure, and a run that makes one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from irtools import optimize
from irtools.data import Dataset
from irtools.driver.result import OptimizeResult
from irtools.driver.settings import Settings
from irtools.goals import Interval
from irtools.instruments import FidelityFigure, Latency, Layer, Layers, MetricFigure, Rollback
from irtools.instruments.first_run import FirstRun
from irtools.instruments.sizes import Size
from irtools.measure.base import BenchSettings, LatencyResult, Ratio
from irtools.measure.figures import Figure
from irtools.measure.machine import Machine
from irtools.report.document import Report
from irtools.report.entries import (
    DataEntry,
    GoalEntry,
    ModelEntry,
    PassEntry,
    Row,
    TargetEntry,
    TriedEntry,
)
from irtools.report.verdicts import judge_run
from irtools.targets import KernelReport
from irtools.testing import read_model


def _latency(name: str, median: float, speedup: float) -> Latency:
    blocks = tuple(median * factor for factor in (0.98, 1.0, 1.03, 1.01))
    ratio = Ratio(speedup, 0.95 * speedup, 1.05 * speedup) if name != "original" else None
    shape = "batch=1 sequence=64"
    timed = LatencyResult(
        name, shape, median, 1.1 * median, 1.3 * median, 1e3 / median, 10**8, 0.2, 90, blocks, ratio
    )
    return Latency((timed,))


def _row(index: int, text: str, *figures: Figure, **changes: Any) -> Row:
    found = {figure.key: figure for figure in figures}
    values: dict[str, Any] = {
        "modified": index > 0,
        "skipped": False,
        "counters": {"num-quantized-matmul": 36} if index else {},
        "changed": 36 * (index > 0),
        "skipped_parts": 0,
        "notes": (f"a note of {text}",),
        "checks": ("verifier",),
        "figures": found,
        "seconds": {"pass": 1.5},
    }
    return Row(index=index, text=text, **{**values, **changes})


def _layers() -> tuple[Layer, ...]:
    levels = {"a": math.inf, "b": 41.5, "logits_in": 38.0}
    return tuple(Layer(name, f"layer.{name}", "MatMul", db) for name, db in levels.items())


def _rows() -> tuple[Row, ...]:
    metrics = [MetricFigure("accuracy", v, v - 0.006, v + 0.006, 2189) for v in (0.9776, 0.9762)]
    closeness = [FidelityFigure(db, 0.0, 0.0, 1.0, 0.0, 0.995, 128) for db in (139.1, 32.1)]
    return (
        _row(
            0,
            "original",
            Size(91_600_000, 91_000_000),
            _latency("original", 14.28, 1.0),
            metrics[0],
            closeness[0],
            FirstRun(0.25, 0.02),
        ),
        _row(
            1,
            "int8:calibrator=mse",
            Size(23_100_000, 23_000_000),
            _latency("int8:calibrator=mse", 4.62, 3.01),
            metrics[1],
            closeness[1],
            remedies=("calibrator=entropy, which cuts more",),
        ),
        _row(
            2,
            "prune:speedup=1.5",
            Size(23_100_000, 23_000_000),
            _latency("prune:speedup=1.5", 4.62, 3.01),
            metrics[1],
            closeness[1],
            FirstRun(0.06, 0.01),
            Layers(16, _layers(), 3, "b"),
            Rollback(0, 7, 0.02, 0.03, "max-drop=1%", "accuracy", 4),
        ),
    )


@pytest.fixture(scope="session")
def make_report() -> Callable[..., Report]:
    """Make a report of three rows; any field can be given."""

    def make(**changes: Any) -> Report:
        rows = changes.get("rows", _rows())
        data = DataEntry("test.npz", "0" * 64, 2189, False, True)
        kernels = KernelReport({"MatMulIntegerToFloat": 36, "Add": 3}, 36)
        values: dict[str, Any] = {
            "created": "2026-01-01T00:00:00+00:00",
            "model": ModelEntry("r8.onnx", "0" * 64, 305, 20),
            "calibration": DataEntry("train.npz", "2" * 64, 256, False, True),
            "evaluation": data,
            "target": TargetEntry("ort-cpu", "vnni", "onnxruntime 1"),
            "machine": Machine("CPU", "vnni", 2, 2, "Linux"),
            "versions": {"irtools": "0.1.0", "python": "3.11"},
            "pipeline": ",".join(row.text for row in rows[1:]),
            "passes": (PassEntry("int8", "int8:calibrator=mse", "lossy", {"exclude": []}),),
            "settings": Settings(threads=2, goals="max-drop=1%").entry(),
            "bench": BenchSettings(),
            "rows": rows,
            "result": ModelEntry("result", "1" * 64, 170, 23),
            "kernels": kernels,
            "verdicts": judge_run(rows, kernels, data, data),
            "seconds": 61.0,
            "goals": (GoalEntry("max-drop=1%", "0.14 points [-0.3, 0.6]", True),),
            "command": "irc optimize r8.onnx --passes 'int8:calibrator=mse'",
            "next": ("fixed sizes, to which callers pad: irc optimize r8.onnx --fix sequence=64",),
        }
        return Report(**{**values, **changes})

    return make


@pytest.fixture(scope="session")
def trials() -> tuple[TriedEntry, ...]:
    """Sixty trials of a tuner, some on the front and some that ended early."""
    found = []
    for number in range(60):
        speed, loss = 1 + number / 20, 0.001 * number**1.2 / 10 + 0.004 * (number % 3)
        figures = {
            "speedup": Interval(speed, 0.96 * speed, 1.04 * speed),
            "loss:accuracy": Interval(loss, loss - 0.003, loss + 0.003),
            "size": Interval.exact(9e7 / speed),
        }
        ended = number % 7 == 6
        found.append(
            TriedEntry(
                f"trial {number}",
                f"cleanup,fuse,int8:calibrator=mse:exclude=layer.{number}",
                "refused" if ended else "taken" if number == 59 else "left",
                "max-drop=1% is not kept" if ended else "",
                {} if ended else figures,
            )
        )
    return tuple(found)


_TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[batch, 16] x, float[16, 64] w1, float[64, 4] w2) => (float[batch, 4] logits) {
  h = MatMul (x, w1)
  a = Relu (h)
  same = Identity (a)
  logits = MatMul (same, w2)
}
"""


@pytest.fixture(scope="session")
def classify() -> Callable[..., OptimizeResult]:
    """Quantize a classifier whose nodes name their modules; a ninth of the labels is wrong."""

    def run(**options: Any) -> OptimizeResult:
        rng = np.random.default_rng(1)
        weights = {
            "w1": rng.standard_normal((16, 64)).astype(np.float32),
            "w2": rng.standard_normal((64, 4)).astype(np.float32),
        }
        x = rng.standard_normal((400, 16)).astype(np.float32)
        labels = (np.maximum(x @ weights["w1"], 0) @ weights["w2"]).argmax(axis=-1)
        labels[::9] = (labels[::9] + 1) % 4
        data = Dataset({"x": x}, labels, source="made.npz")
        model = read_model(_TEXT, weights)
        names = ("layer.0.up", "layer.0", "", "layer.1.down")
        for node, module in zip(model.ir.graph, names, strict=True):
            node.name = f"{module}/{node.op_type}"
        passes = "cleanup,int8:min-size=0"
        given = {"calibration": data, "evaluation": data, "bench": None, "threads": 1}
        return optimize(model, passes, **given, **options)

    return run
