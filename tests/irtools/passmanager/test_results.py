"""Results of passes that are kept between runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest

from irtools import Dataset, Model, Pipeline, optimize
from irtools.editing import maker_of
from irtools.files import Store
from irtools.passmanager import (
    KeptResults,
    Pass,
    PassContext,
    PassManager,
    PassResult,
)

_RUNS: list[str] = []


@dataclass(frozen=True)
class Doubling(Pass):
    """Double the weight."""

    name: ClassVar[str] = "doubling"
    counters: ClassVar = {"num-doubled": "weights doubled"}

    times: int = 1
    change: bool = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        from irtools.editing import Editor

        _RUNS.append(str(self.times))
        if not self.change:
            return PassResult(modified=False, notes=("nothing to do",))
        weight = model.graph.initializers["w"]
        assert weight.const_value is not None
        editor = Editor(model, self.name)
        doubled = editor.constant("doubled", weight.const_value.numpy() * 2**self.times)
        weight.replace_all_uses_with(doubled)
        return PassResult(
            modified=True,
            counters={"num-doubled": 1},
            notes=("a note",),
            companions={"extra.json": b"{}"},
        )


def _model(scale: float = 1.0) -> Model:
    graph = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 20]>
        g (float[batch, 4] x) => (float[batch, 4] y) { y = MatMul(x, w) }"""
    )
    weight = next(v for n in graph.graph for v in n.inputs if v is not None and v.name == "w")
    weight.const_value = ir.tensor(scale * np.arange(16, dtype=np.float32).reshape(4, 4), name="w")
    graph.graph.register_initializer(weight)
    return Model(graph)


@pytest.fixture
def run(tmp_path: Path, make_context: Callable[..., PassContext]) -> Callable:
    def made(*passes: Pass, model: Model | None = None, seconds: float = 0.0, **identity: object):
        del _RUNS[:]
        kept = KeptResults(Store(tmp_path), identity, seconds)
        manager = PassManager(Pipeline(*passes), kept=kept)
        return manager.run(model or _model(), make_context())

    return made


def test_a_result_comes_back_as_it_was(run: Callable) -> None:
    first = run(Doubling())[-1]
    assert _RUNS == ["1"]
    second = run(Doubling())[-1]
    assert not _RUNS
    assert second.modified and second.result == first.result
    assert second.model.fingerprint() == first.model.fingerprint()
    assert second.model.companions == {"extra.json": b"{}"}
    assert second.figures.notes == first.figures.notes == ["a note"]
    (made,) = (v for n, v in second.model.ir.graph.initializers.items() if n.startswith("doubled"))
    assert maker_of(made) == "doubling"


def test_only_what_comes_after_a_change_runs_again(run: Callable) -> None:
    run(Doubling(), Doubling(times=2))
    assert _RUNS == ["1", "2"]
    steps = run(Doubling(), Doubling(times=3))
    assert _RUNS == ["3"]
    fresh = run(Doubling(), Doubling(times=3), other="identity")
    assert _RUNS == ["1", "3"]
    assert steps[-1].model.fingerprint() == fresh[-1].model.fingerprint()


def test_a_pass_that_changes_nothing_is_kept_too(run: Callable) -> None:
    run(Doubling(change=False))
    step = run(Doubling(change=False))[-1]
    assert not _RUNS and not step.modified and step.result.notes == ("nothing to do",)
    assert step.model is step.before


def test_quick_passes_and_other_models_run(run: Callable) -> None:
    run(Doubling(), seconds=60.0)
    run(Doubling())
    assert _RUNS == ["1"]
    run(Doubling(), model=_model(2.0))
    assert _RUNS == ["1"]
    named = _model()
    named.ir.graph[0].metadata_props["pkg.torch.onnx.name_scopes"] = "encoder"
    run(Doubling(), model=named)
    assert _RUNS == ["1"]


def test_a_damaged_result_runs_again(run: Callable, tmp_path: Path) -> None:
    run(Doubling())
    for file in tmp_path.rglob("result.json"):
        file.write_text("{}")
    run(Doubling())
    assert _RUNS == ["1"]


def test_reports_of_kept_results_say_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from irtools.passmanager import results

    monkeypatch.setattr(results, "_LEAST_SECONDS", 0.0)
    rng = np.random.default_rng(0)
    proto = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 20]>
        g (float[batch, 64] x) => (float[batch, 64] y) {
        h = MatMul(x, w1) r = Relu(h) i = Identity(r) y = MatMul(i, w2) }"""
    )
    for name, shape in (("w1", (64, 512)), ("w2", (512, 64))):
        value = next(v for n in proto.graph for v in n.inputs if v is not None and v.name == name)
        value.const_value = ir.tensor(rng.normal(size=shape).astype(np.float32), name=name)
        proto.graph.register_initializer(value)
    data = Dataset({"x": rng.normal(size=(32, 64)).astype(np.float32)})

    def report(cache: Path | None) -> tuple[object, ...]:
        found = optimize(
            Model(proto),
            "cleanup,int8:mode=static",
            calibration=data,
            bench=None,
            target="ort-cpu:isa=vnni",
            cache=cache,
        )
        rows = [(r.text, r.counters, r.notes, r.modified, r.size, r.fidelity) for r in found.rows]
        made = found.report
        return rows, found.plans, made.calibration, made.result.sha256, made.verdicts

    plain, first, second = report(None), report(tmp_path), report(tmp_path)
    assert plain == first == second
    assert len(list(tmp_path.glob("store-*/pass/*/*"))) == 2
