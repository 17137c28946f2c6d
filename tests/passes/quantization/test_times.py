"""`bits=auto:max-latency=`: forms by error and time. The times are planted."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import Dataset
from irtools.errors import UnsupportedError, UsageError
from irtools.measure import several
from irtools.model import Model
from irtools.passes.quantization import times
from irtools.passes.quantization.alternatives import Alternatives
from irtools.passes.quantization.budget import Budget
from irtools.passes.quantization.mixed import mixed
from irtools.passes.quantization.times import Clock
from irtools.passmanager import Decision, PassContext, Pipeline
from irtools.plugins import NullProgress
from irtools.targets import find_target

from .test_mixed import AUTO, TIED, branches, build, inputs

FORMS = {"2 bits": (0.3, 14.0, 1.0), "4 bits": (0.02, 12.0, 1.5), "8 bits": (1e-4, 8.0, 3.0)}
"""Error, bytes saved and milliseconds for a weight of sensitivity 1."""
SENSITIVITY = {"a": 1.0, "b": 0.3, "c": 0.02, "d": 0.001}


def planted() -> list[Alternatives]:
    found = []
    for name, weight in SENSITIVITY.items():
        decisions = tuple(
            Decision(name, form, cost=weight * error, gain=gain)
            for form, (error, gain, _) in FORMS.items()
        )
        found.append(Alternatives(decisions[1], decisions))
    return found


def clock(limit: float, around: float = 2.0) -> Clock:
    ms = {(name, form): each[2] for name in SENSITIVITY for form, each in FORMS.items()}
    return Clock(limit, around, "batch=1", "4 products", ms)


def best(size: float, limit: float) -> float:
    """The least error of all 81 choices."""
    rest = 16.0 * len(SENSITIVITY)
    return min(
        sum(weight * FORMS[f][0] for weight, f in zip(SENSITIVITY.values(), forms, strict=True))
        for forms in itertools.product(FORMS, repeat=4)
        if rest - sum(FORMS[f][1] for f in forms) <= size
        and 2 + sum(FORMS[f][2] for f in forms) <= limit
    )


@pytest.mark.parametrize(("size", "limit"), [(16, 20), (16, 9), (20, 9.5), (24, 8), (40, 10)])
def test_the_best_of_all_choices_is_found(size: int, limit: float) -> None:
    mix = mixed(planted(), Budget(size=size, clock=clock(limit)), 64, None)
    assert sum(d.cost for d in mix.decisions) == pytest.approx(best(size, limit))


def test_the_sensitive_weight_keeps_the_bits_and_the_others_make_up_for_its_time() -> None:
    mix = mixed(planted(), Budget(size=30, clock=clock(8.5)), 64, None)
    assert [d.action for d in mix.decisions] == ["8 bits", "4 bits", "2 bits", "2 bits"]
    assert (
        "max-latency=8.5: a run is predicted to take 8.5 ms at batch=1, 8 ms with" in mix.notes[-1]
    )
    assert mix.notes[-2].startswith("finest a (76 %), ")


def test_a_time_alone_takes_no_more_bytes_than_one_form_for_all() -> None:
    mix = mixed(planted(), Budget(clock=clock(20)), 64, None)
    assert 64 - sum(d.gain for d in mix.decisions) <= 16
    quick = mixed(planted(), Budget(clock=clock(6)), 64, None)
    assert {d.action for d in quick.decisions} == {"2 bits"}


def test_bounds_that_cannot_be_kept_are_refused_in_one_line() -> None:
    with pytest.raises(UnsupportedError) as error:
        mixed(planted(), Budget(clock=clock(5)), 64, None)
    assert str(error.value) == (
        "max-latency=5 cannot be kept: with the fastest forms a run takes 6 ms at batch=1, 2 ms of "
        "them outside of the products that are decided about"
    )
    slow = Clock(
        9.0, 2.0, "batch=1", "4 products", {key: 4.5 - ms for key, ms in clock(1).ms.items()}
    )
    with pytest.raises(UnsupportedError, match=r"size=9 B and max-latency=.* cannot both be kept"):
        mixed(planted(), Budget(size=9, clock=slow), 64, None)


def planted_times(
    monkeypatch: pytest.MonkeyPatch, milliseconds: dict[str, float]
) -> list[ir.Model]:
    """Give a time by the types of a model's weights; returns what was timed."""
    seen: list[ir.Model] = []

    def timed(models: Sequence[several.Timed], *_: object, **__: object) -> list[float | None]:
        seen.extend(each.model for each in models)
        found: list[float | None] = [10.0]
        for each in models[1:]:
            types = {v.dtype.name for v in each.model.graph.initializers.values()}
            found.append(next((ms for kind, ms in milliseconds.items() if kind in types), None))
        return found

    monkeypatch.setattr(times, "time_several_models", timed)
    return seen


def context(data: dict[str, np.ndarray]) -> PassContext:
    model = Model(branches())
    return PassContext.for_model(model, "ort-cpu:isa=vnni", calibration=Dataset(data))


def test_each_shape_is_timed_once_in_every_form(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = planted_times(monkeypatch, {"INT2": 1.0, "UINT2": 1.0, "UINT4": 2.0, "FLOAT16": 9.0})
    (found,) = Pipeline.parse(f"{AUTO}:max-latency=9")
    ctx = context(inputs())
    plan = found.plan(branches(), ctx)
    # The model itself; three products of one shape in 17 forms.
    assert len(seen) == 18
    shapes = {str(m.graph.inputs[0].shape) for m in seen[1:]}
    assert shapes == {"[1,128]"}
    # What it is as usual comes before what it might become: time may be short.
    assert "UINT4" in {v.dtype.name for v in seen[1].graph.initializers.values()}
    # 10 ms as usual, 6 of them for products in u4: 5 are left.
    assert sorted(d.data["bits"] for d in plan.decisions) == [2, 4, 4]
    assert "max-latency=9: a run is predicted to take 9 ms at batch=1, 10 ms with" in plan.notes[-1]
    copy = branches()
    found.apply(copy, plan, ctx)


def test_a_trial_with_another_bound_times_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = ("UINT2", "INT2", "UINT4", "INT4", "UINT8", "INT8", "FLOAT16", "FLOAT")
    seen = planted_times(monkeypatch, {kind: 1 + place / 8 for place, kind in enumerate(kinds)})
    ctx = context(inputs())
    told = []
    for bound in (9.75, 9.5):
        (found,) = Pipeline.parse(f"{AUTO}:max-latency={bound}")
        told.append(found.plan(branches(), ctx).notes[-1])
    assert "(17 products timed in" in told[0] and "(17 products timed before)" in told[1]
    assert len(seen) == 18


def test_tables_are_timed_as_they_are_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = planted_times(monkeypatch, {"INT4": 1.0, "UINT4": 1.0, "UINT8": 4.0})
    model = build(TIED)
    ids = np.random.default_rng(0).integers(0, 4096, (4, 8))
    ctx = PassContext.for_model(Model(model), "ort-cpu:isa=vnni", calibration=Dataset({"ids": ids}))
    (found,) = Pipeline.parse(f"{AUTO}:max-latency=8:size=500kB")
    plan = found.plan(model, ctx)
    assert {d.data["bits"] for d in plan.decisions if d.data["form"] == "tied"} == {4}
    tied = [m for m in seen[1:] if len(m.graph.inputs) == 2]
    assert tied and {str(m.graph.inputs[0].shape) for m in tied} == {"[128,128]"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("int4:max-latency=3", "max-latency needs bits=auto"),
        ("int8:max-latency=3", "max-latency needs bits=auto"),
        ("int4:bits=auto:max-latency=0", "max-latency is 0.0, expected milliseconds above 0"),
        ("int8:bits=auto:max-latency=nan", "max-latency is nan, expected milliseconds above 0"),
    ],
)
def test_wrong_options_are_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Pipeline.parse(text)


def test_models_are_really_timed_and_what_is_refused_has_no_time() -> None:
    good, bad = branches(), branches()
    next(iter(bad.graph)).domain = "no.such.domain"
    bad.graph.opset_imports["no.such.domain"] = 1
    x = {"x": np.zeros((2, 128), np.float32)}
    found = several.time_several_models(
        [several.Timed(good, x), several.Timed(bad, x)],
        find_target("ort-cpu"),
        1,
        seconds=30.0,
        progress=NullProgress(),
    )
    assert found[0] is not None and 0 < found[0] < 1000
    assert found[1] is None
