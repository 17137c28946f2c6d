from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from irtools.errors import UnsupportedError, UsageError
from irtools.measure import timing as compare
from irtools.measure.base import BenchSettings
from irtools.measure.jobs import fewest_runs
from irtools.measure.timing import Contender, measure, told_of_few_runs
from irtools.model import Model
from irtools.targets import RunnerOptions

_QUICK = BenchSettings(threads=1, rounds=3, block_seconds=0.02, max_seconds=1)


def _model(size: int) -> Model:
    rng = np.random.default_rng(0)
    weight = ir.tensor(rng.standard_normal((size, size), np.float32), name="w")
    x = ir.val("x", ir.DataType.FLOAT, ["batch", size])
    w = ir.val("w", const_value=weight)
    node = ir.node("MatMul", [x, w])
    node.outputs[0].name = "y"
    node.outputs[0].dtype = ir.DataType.FLOAT
    node.outputs[0].shape = ir.Shape(["batch", size])
    graph = ir.Graph([x], [*node.outputs], nodes=[node], initializers=[w], opset_imports={"": 20})
    return Model(ir.Model(graph, ir_version=10))


def _feeds(size: int, batch: int = 1) -> dict[str, dict[str, np.ndarray]]:
    return {f"batch={batch}": {"x": np.ones((batch, size), np.float32)}}


def test_a_smaller_model_is_measured_to_be_faster(tmp_path: Path) -> None:
    small = tmp_path / "small.onnx"
    _model(512).save(small)
    feeds = _feeds(512, batch=64)
    contenders = {
        "plain": Contender(_twice(_model(512), 12), "ort-cpu"),
        "small": Contender(small, "ort-cpu"),
    }
    plain, fast = measure(contenders, feeds, _QUICK)
    assert plain.speedup is None
    assert fast.speedup is not None
    assert fast.speedup.low < fast.speedup.value < fast.speedup.high
    assert fast.speedup.value > 2
    assert len(fast.block_medians_ms) >= 3
    assert fast.runs >= 9
    assert fast.median_ms <= fast.p90_ms <= fast.p99_ms
    assert fast.load_seconds > 0
    assert fast.peak_bytes > 10 * 2**20
    assert fast.throughput == pytest.approx(64 / fast.median_ms * 1e3, rel=0.9)


@pytest.mark.usefixtures("cheap_jobs")
def test_results_come_by_shape_then_contender() -> None:
    contenders = {name: Contender(_model(8), "ort-cpu") for name in ("a", "b")}
    feeds = {**_feeds(8, 1), **_feeds(8, 4)}
    found = [(r.shape, r.name) for r in measure(contenders, feeds, _QUICK)]
    assert found == [("batch=1", "a"), ("batch=1", "b"), ("batch=4", "a"), ("batch=4", "b")]


def test_a_refusal_names_the_contender(tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_text("no model")
    with pytest.raises(UnsupportedError, match=r"ONNX Runtime .* refuses the model"):
        measure({"bad": Contender(path, "ort-cpu")}, _feeds(8), _QUICK)


class _Blocks:
    """Stands in for child processes: answers at once, and notes who was asked."""

    def __init__(self, noise: float) -> None:
        self.asked: list[str] = []
        self.options: list[RunnerOptions] = []
        self._rng = np.random.default_rng(0)
        self._noise = noise

    def __call__(self, job: object, path: Path, *rest: Any, **_: object) -> Mapping[str, object]:
        self.asked.append(path.stem)
        self.options.append(rest[1])
        times = np.full(3, np.exp(self._rng.normal(0, self._noise)))
        return {"load_seconds": 0.1, "first_seconds": 0.1, "peak_bytes": 1, "times": [times]}


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> _Blocks:
    made = _Blocks(getattr(request, "param", 0.0))
    monkeypatch.setattr(compare, "run_isolated", made)
    return made


_ABC = {name: Contender(Path(f"{name}.onnx"), "ort-cpu") for name in "abc"}


def test_contenders_swap_places_from_round_to_round(blocks: _Blocks) -> None:
    measure(_ABC, _feeds(8), _QUICK)
    assert blocks.asked == [*"abc", *"acb", *"cab"]


def test_all_run_with_the_same_threads(blocks: _Blocks) -> None:
    measure(_ABC, _feeds(8), _QUICK)
    assert {options.threads for options in blocks.options} == {1}


@pytest.mark.parametrize("blocks", [0.5], indirect=True)
def test_wide_intervals_get_more_rounds_up_to_a_bound(blocks: _Blocks) -> None:
    results = measure(_ABC, _feeds(8), BenchSettings(threads=1, rounds=4, max_seconds=60))
    assert len(results[0].block_medians_ms) == 8


@pytest.mark.parametrize("blocks", [0.5], indirect=True)
def test_time_ends_the_measuring_but_not_before_three_rounds(blocks: _Blocks) -> None:
    results = measure(_ABC, _feeds(8), BenchSettings(threads=1, rounds=9, max_seconds=0))
    assert len(results[0].block_medians_ms) == 3


class _Clock:
    """A monotonic clock that a block moves on."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(("seconds", "rounds"), [(2.0, 3), (20.0, 2)])
def test_a_model_of_many_seconds_is_run_twice_and_a_note_says_so(
    seconds: float, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = _Clock()

    def block(*_: object, **__: object) -> Mapping[str, object]:
        clock.now += seconds
        times = [np.array([seconds])]
        return {"load_seconds": 0.1, "first_seconds": seconds, "peak_bytes": 1, "times": times}

    monkeypatch.setattr(compare, "run_isolated", block)
    monkeypatch.setattr(compare, "time", clock)
    two = {name: _ABC[name] for name in "ab"}
    results = measure(two, _feeds(8), BenchSettings(threads=1, rounds=3, max_seconds=5))
    assert [len(r.block_medians_ms) for r in results] == [rounds, rounds]
    assert results[1].speedup is not None
    assert f"timed in {rounds} runs each: one takes" in told_of_few_runs(results)


def test_runs_of_a_block_are_fewer_where_one_takes_seconds() -> None:
    assert [fewest_runs(s) for s in (0.0, 0.9, 1.4, 2.0, 60.0)] == [3, 3, 2, 1, 1]


def test_models_that_are_run_often_have_no_such_note(blocks: _Blocks) -> None:
    assert told_of_few_runs(measure(_ABC, _feeds(8), _QUICK)) == ""


@pytest.mark.parametrize(
    "settings",
    [BenchSettings(rounds=2), BenchSettings(confidence=1.0), BenchSettings(threads=0)],
)
def test_settings_out_of_range(settings: BenchSettings) -> None:
    with pytest.raises(UsageError):
        measure(_ABC, _feeds(8), settings)


def test_nothing_to_time() -> None:
    with pytest.raises(UsageError, match="nothing to time"):
        measure({}, _feeds(8), _QUICK)


def _twice(model: Model, times: int) -> Model:
    """Chain the one MatMul of a model several times."""
    graph = model.ir.graph
    output = graph.outputs[0]
    for index in range(times):
        node = ir.node("MatMul", [output, graph.initializers["w"]])
        node.outputs[0].name = f"y{index}"
        node.outputs[0].dtype = output.dtype
        node.outputs[0].shape = output.shape
        graph.append(node)
        output = node.outputs[0]
    graph.outputs[0] = output
    return model
