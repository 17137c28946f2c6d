"""Times are taken for this machine only."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import irtools
from irtools.errors import UsageError
from irtools.measure.base import BenchSettings
from irtools.measure.own_machine import refuse_foreign, why_not_timed
from irtools.measure.profile import profile_model
from irtools.measure.timing import Contender, measure
from irtools.model import Model
from irtools.passmanager import PassContext
from irtools.targets import Isa, find_target
from irtools.targets import isa as detection

_FEEDS = {"x": np.ones((1, 4), np.float32)}
_QUICK = BenchSettings(batch=(1,), sequence=(4,), rounds=3, max_seconds=1, threads=1)


@pytest.fixture(autouse=True)
def _a_machine_with_vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "_detect", lambda: Isa.VNNI)


def _model() -> Model:
    return Model(
        ir.from_onnx_text(
            '<ir_version: 10, opset_import: ["" : 20]>'
            "m (float[b, 4] x) => (float[b, 4] y) { i = Identity(x)  y = Neg(i) }"
        )
    )


@pytest.mark.parametrize("name", ["ort-cpu", "openvino-cpu"])
def test_only_the_own_instruction_set_is_timed(name: str) -> None:
    assert why_not_timed(find_target(name, check=False)) == ""
    assert why_not_timed(find_target(f"{name}:isa=native", check=False)) == ""
    for isa in set(Isa) - {Isa.VNNI}:
        foreign = find_target(f"{name}:isa={isa.value}", check=False)
        assert f"{name}:isa={isa.value} is another CPU" in why_not_timed(foreign)
        with pytest.raises(UsageError, match=r"the toast needs times.*which has vnni: eat bread"):
            refuse_foreign(foreign, "the toast", "eat bread")


@pytest.mark.parametrize("name", ["ort-cuda", "ort-tensorrt", "openvino-gpu"])
def test_a_gpu_is_the_same_whatever_the_cpu(name: str) -> None:
    assert why_not_timed(find_target(f"{name}:isa=avx2", check=False)) == ""


def test_nothing_is_timed_for_another_machine() -> None:
    contenders = {"a": Contender(_model(), "ort-cpu"), "b": Contender(_model(), "ort-cpu:isa=amx")}
    with pytest.raises(UsageError, match="the benchmark needs times"):
        measure(contenders, {"batch=1": _FEEDS}, _QUICK)
    target = find_target("ort-cpu:isa=amx")
    with pytest.raises(UsageError, match="the profile needs times"):
        profile_model(_model(), target, _FEEDS, shape="batch=1", data="drawn", runs=2)


def test_the_latency_column_stays_empty() -> None:
    result = irtools.optimize(_model(), "cleanup", target="ort-cpu:isa=avx2", bench=_QUICK)
    assert [row.latency for row in result.rows] == [None, None]
    notes = [note for row in result.rows for note in row.notes]
    assert notes == [
        "not benchmarked: ort-cpu:isa=avx2 is another CPU than this one, which has vnni"
    ]


def test_what_decides_by_times_is_refused(make_context) -> None:
    with pytest.raises(UsageError, match="drop-slower needs times"):
        irtools.optimize(
            _model(), "cleanup", target="ort-cpu:isa=avx2", bench=_QUICK, drop_slower=True
        )
    context: PassContext = make_context("ort-cpu:isa=avx2")
    (prune,) = irtools.Pipeline("prune:speedup=1.5")
    for call in (prune.plan, prune.run):
        with pytest.raises(UsageError, match=r"speedup=1.5 needs times.*give ratio= instead"):
            call(_model().ir, context)
