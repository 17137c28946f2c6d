"""What is measured once for all that decides it, and whose statistics a search remembers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from irtools.data import Dataset
from irtools.measure.cache import OutputCache
from irtools.model import Model
from irtools.passmanager import Calibration, PassContext, Tables
from irtools.targets import find_target


class _Clock:
    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> Mapping[str, object]:
        self.asked += 1
        return {"ms": [1.5, 0.5], "order": np.arange(3), "shape": "batch=1"}


def test_a_table_is_made_once_for_its_key() -> None:
    tables, clock = Tables(), _Clock()
    first = tables.get("times", clock, model="a", threads=2)
    assert tables.get("times", clock, model="a", threads=2) is first and clock.asked == 1
    tables.get("times", clock, model="b", threads=2)
    tables.get("times", clock, model="a", threads=1)
    tables.get("costs", clock, model="a", threads=2)
    assert clock.asked == 4
    assert tables.find("times", model="c") is None


def test_another_run_on_the_same_machine_finds_it_and_no_other(tmp_path: Path) -> None:
    clock = _Clock()
    here = {"cpu": "this", "threads": 2}
    Tables(OutputCache(tmp_path), here).get("times", clock, model="a")
    found = Tables(OutputCache(tmp_path), here).get("times", clock, model="a")
    assert clock.asked == 1 and found["ms"] == [1.5, 0.5] and found["shape"] == "batch=1"
    assert np.array_equal(found["order"], np.arange(3))
    for other in ({**here, "cpu": "that"}, {**here, "threads": 1}):
        Tables(OutputCache(tmp_path), other).get("times", clock, model="a")
    assert clock.asked == 3


def test_a_damaged_table_is_measured_again(tmp_path: Path) -> None:
    clock = _Clock()
    Tables(OutputCache(tmp_path)).get("times", clock, model="a")
    [file] = tmp_path.rglob("arrays.npz")
    file.write_bytes(b"x" * file.stat().st_size)
    said: list[str] = []
    again = Tables(OutputCache(tmp_path, warn=said.append)).get("times", clock, model="a")
    assert clock.asked == 2 and again["ms"] == [1.5, 0.5]
    assert "is damaged" in said[0]


def test_a_search_remembers_the_statistics_of_models_that_many_pipelines_begin_with(
    classifier: Model, labelled: Dataset
) -> None:
    other = classifier.clone()
    other.ir.graph.initializers["b"].const_value = ir.tensor(np.ones(4, np.float32), name="b")

    def services(*, searching: bool) -> list[object]:
        given = Calibration(labelled, classifier)
        ctx = PassContext.for_run(find_target("ort-cpu"), given, searching=searching)
        found: list[object] = []
        for model in (classifier, other, classifier):
            found.append(ctx.statistics(model.ir))
            ctx.forget_statistics()
        return found

    first, second, third = services(searching=True)
    assert first is third and first is not second
    first, _, third = services(searching=False)
    assert first is not third
