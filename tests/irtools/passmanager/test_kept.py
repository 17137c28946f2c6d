"""Statistics of activations that are kept between runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest

from irtools.measure.cache import OutputCache
from irtools.passmanager.kept import KeptStatistics
from irtools.statistics import (
    ChannelRange,
    Count,
    Gram,
    GramResult,
    Histogram,
    HistogramResult,
    MinMax,
    MinMaxResult,
    Want,
)

_ANSWERS: Mapping[Want, object] = {
    Want("a", MinMax()): MinMaxResult(np.float32(-0.1), math.inf, 2),  # type: ignore[arg-type]
    Want("a", Histogram()): HistogramResult(
        np.ones(3, np.float32),
        np.arange(3),
        -1.0,
        np.float64(2.5),
        None,  # type: ignore[arg-type]
    ),
    Want("b", ChannelRange()): np.full((2, 4), 0.1, np.float32),
    Want("b", Count()): 17,
    Want("b", Gram()): GramResult(np.eye(3), None, np.zeros(2), 5),
}


class _Service:
    num_samples, synthetic = 8, False

    def __init__(self) -> None:
        self.asked: list[tuple[Want, ...]] = []

    def collect(self, wants: Iterable[Want]) -> Mapping[Want, object]:
        self.asked.append(tuple(wants))
        return {want: _ANSWERS[want] for want in self.asked[-1]}


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., tuple[KeptStatistics, _Service]]:
    def made(**identity: object) -> tuple[KeptStatistics, _Service]:
        service, cache = _Service(), OutputCache(tmp_path)
        known = {"model": "m", "data": "d", **identity}
        return KeptStatistics(lambda: service, (cache, {"cpu": "c"}), known, (8, False)), service

    return made


def _equal(one: object, other: object) -> None:
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype and np.array_equal(one, other)  # type: ignore[attr-defined]
    elif hasattr(one, "__dataclass_fields__"):
        for name in one.__dataclass_fields__:
            _equal(getattr(one, name), getattr(other, name))
    else:
        assert one == other


def test_answers_come_back_bit_for_bit_with_their_types(make: Callable) -> None:
    first, asked = make()
    first.collect(_ANSWERS)
    second, unasked = make()
    found = second.collect(_ANSWERS)
    assert len(asked.asked) == 1 and not unasked.asked
    for want, answer in _ANSWERS.items():
        _equal(found[want], answer)
    assert (second.num_samples, second.synthetic) == (8, False)


def test_what_was_not_asked_is_collected(make: Callable) -> None:
    wants = list(_ANSWERS)
    first, _ = make()
    first.collect(wants[:2])
    second, asked = make()
    second.collect(wants[:2])
    assert not asked.asked
    second.collect(wants[:3])
    assert asked.asked == [(wants[2],)]
    second.collect(wants[:3])
    assert len(asked.asked) == 1


@pytest.mark.parametrize("other", [{"model": "n"}, {"data": "e"}])
def test_other_models_and_data_are_other_entries(make: Callable, other: dict) -> None:
    first, _ = make()
    first.collect(_ANSWERS)
    second, asked = make(**other)
    second.collect(_ANSWERS)
    assert len(asked.asked) == 1


def test_a_run_calibrates_and_evaluates_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx_ir as ir

    from irtools import Dataset, Model, optimize
    from irtools.statistics import StreamingStatistics

    rng = np.random.default_rng(0)
    proto = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 20]>
        g (float[batch, 64] x) => (float[batch, 64] y) {
        h = MatMul(x, w1) r = Relu(h) y = MatMul(r, w2) }"""
    )
    for name, shape in (("w1", (64, 512)), ("w2", (512, 64))):
        value = next(v for n in proto.graph for v in n.inputs if v is not None and v.name == name)
        value.const_value = ir.tensor(rng.normal(size=shape).astype(np.float32), name=name)
        proto.graph.register_initializer(value)
    x = rng.normal(size=(64, 64)).astype(np.float32)
    data = Dataset({"x": x}, rng.integers(0, 8, 64))
    swept: list[object] = []
    sweep = StreamingStatistics.collect

    def watched(self: StreamingStatistics, wants: Iterable[Want]) -> Mapping[Want, object]:
        swept.append(wants)
        return sweep(self, wants)

    monkeypatch.setattr(StreamingStatistics, "collect", watched)
    shown: list[str] = []

    class Shown:
        def step(self, label: str, done: int, total: int) -> None:
            shown.append(label)

    def run() -> Model:
        del swept[:], shown[:]
        result = optimize(
            Model(proto),
            "int8:mode=static",
            calibration=data,
            evaluation=data,
            bench=None,
            check=False,
            target="ort-cpu:isa=vnni",
            cache=tmp_path,
            progress=Shown(),
        )
        figures.append(result.rows[-1].metric)
        return result.deployed

    figures: list[object] = []
    first = run()
    assert swept and "evaluating the model" in shown
    second = run()
    assert not swept and not [label for label in shown if label.startswith("evaluating")]
    assert first.fingerprint() == second.fingerprint() and figures[0] == figures[1]
