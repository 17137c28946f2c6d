"""Several targets in one search, and the best trials compared once more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from irtools.data import Dataset
from irtools.errors import UsageError
from irtools.instruments import benchmark
from irtools.measure import timing
from irtools.measure.base import LatencyResult, Ratio
from irtools.model import Model
from irtools.search import Space, finals, tune_model
from irtools.search.places import Spaces
from irtools.search.study import Study
from irtools.search.trials import Tried

_TWO = ("ort-cpu", "openvino-cpu")
Rounds = list[dict[str, float]]


def test_a_target_is_drawn_with_a_pipeline_of_its_own_space() -> None:
    spaces = Spaces(
        {
            "ort-cpu": Space(False, ("int8", "int4"), False),
            "openvino-cpu": Space(False, ("int8", "fp16"), False),
        }
    )
    lists: dict[str, Sequence[str]] = {}

    def choose(target: str, name: str, options: Sequence[str]) -> str:
        # A study knows one list by a name.
        assert lists.setdefault(name, options) == options
        return target if name == "target" else options[-1]

    for target, form in (("ort-cpu", "int4"), ("openvino-cpu", "fp16")):
        drawn = spaces.draw(lambda name, options, target=target: choose(target, name, options))
        assert drawn[0] == target and form in drawn[1]
    first = [spaces.draw(lambda name, _, one=one: one[name]) for one in spaces.first]
    usual = "cleanup,fuse,sink,int8"
    assert first[:2] == [("ort-cpu", usual), ("openvino-cpu", usual)]
    alone = Spaces({"ort-cpu": Space(False, ("int8",), False)})
    assert alone.draw(lambda name, _: alone.first[0][name]) == ("ort-cpu", usual)


@pytest.mark.tune
def test_finalists_are_the_best_each_model_once() -> None:
    study = Study(2, 0)
    for number, values in enumerate(((1.5, 1.0), (1.05, 6.0), (1.0, 5.0), (1.08, 4.0), (1.0, 5.0))):
        trial = study.ask()
        trial.set_user_attr("pipeline", f"p{number}")
        # The last one makes the model of the third.
        study.tell(trial, Tried("", "third" if number in (2, 4) else str(number), values))
    found = finals.finals_of(study, ("latency", "size"))
    assert [one.pipeline for one in found] == ["p2", "p1", "p3"]
    assert finals.finals_of(study, ("size", "latency")) == [], "sizes are known without noise"


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> Rounds:
    """Give times in ms by a part of a contender's name; what was timed together is returned."""
    asked: Rounds = []

    def measure(contenders: Any, feeds: Any, settings: Any, progress: Any) -> list[LatencyResult]:
        times = {name: _time(name, one.target, len(contenders)) for name, one in contenders.items()}
        asked.append(times)
        base = next(iter(times.values()))
        return [_result(name, time, base) for name, time in times.items()]

    monkeypatch.setattr(benchmark, "measure", measure)
    monkeypatch.setattr(timing, "measure", measure)
    return asked


def _time(name: str, target: str, together: int) -> float:
    """On OpenVINO the original takes twice as long. The first trial is lucky when it is alone."""
    slow = 2.0 if target.startswith("openvino") else 1.0
    if name.startswith(("original", "openvino")):
        return 10 * slow
    lucky = name == "int8" and together == 2
    return slow * (4.0 if lucky else 5.0 if name.startswith("int8 (") else 4.2)


def _result(name: str, time: float, base: float) -> LatencyResult:
    ratio = base / time
    speedup = None if name == "original" else Ratio(ratio, 0.99 * ratio, 1.01 * ratio)
    return LatencyResult(name, "b=1", time, time, time, 1.0, 1, 0.1, 9, (time,) * 3, speedup)


@pytest.mark.tune
@pytest.mark.openvino
@pytest.mark.slow
def test_the_lucky_one_of_several_targets_is_found_out(
    model: Model, rounds: Rounds, evaluation: Dataset, calibration: Dataset, tmp_path: Path
) -> None:
    told: list[str] = []
    found = tune_model(
        model,
        targets=_TWO,
        trials=4,
        goals="max-drop=5%",
        storage=tmp_path / "tune.db",
        evaluation=evaluation,
        calibration=calibration,
        on_trial=lambda number, text, outcome: told.append(f"{text}: {outcome}"),
    )
    assert [line.partition(":")[0] for line in told] == [*_TWO, *_TWO], "turn about"
    # On OpenVINO it is 2.5 times as fast as the original there, which is half as fast.
    assert "1.25x as fast" in told[1]
    first, *others = found.report.tried
    assert first.target.startswith("ort-cpu") and first.pipeline.endswith("int8:mode=dynamic")
    assert "timed again, alternating, against 2 other trials" in first.why
    [together] = [one for one in rounds if any("(trial" in name for name in one)]
    assert together == {
        "original": 10.0,
        "int8 (trial 0)": 5.0,
        "int8:mode=dynamic (trial 2)": 4.2,
        "int8 (trial 1)": 10.0,
    }
    # Each has the figures of that comparison, against the original on the first target.
    speeds = [one.figures["speedup"].value for one in (first, *others)]
    assert speeds == pytest.approx([10 / 4.2, 2.0, 1.0])
    assert [one.target.partition(":")[0] for one in others] == list(_TWO)
    assert {one.target.partition(":")[0] for one in found.report.trials} == set(_TWO)
    assert found.report.target.name == "ort-cpu"
    assert "among the best" in first.why and "on the front" in others[0].why


@pytest.mark.tune
@pytest.mark.slow
def test_the_loss_is_compared_on_samples_that_no_trial_had_seen(
    model: Model,
    evaluation: Dataset,
    calibration: Dataset,
    rounds: Rounds,
) -> None:
    found = tune_model(
        model,
        trials=2,
        objectives=("loss",),
        goals="max-drop=20%",
        evaluation=evaluation,
        calibration=calibration,
    )
    assert "judged on 300 samples that no trial had seen" in found.report.tried[0].why


def test_targets_are_checked_before_anything_runs(model: Model) -> None:
    with pytest.raises(UsageError, match=r"the target ort-cpu.* is given twice"):
        tune_model(model, targets=("ort-cpu", "ort-cpu"))
    executor: Any = object()
    machines = ("ort-cpu:isa=avx2", "openvino-cpu:isa=amx")
    said = "times of ort-cpu.* and openvino-cpu.* are of different machines and do not compare"
    with pytest.raises(UsageError, match=said):
        tune_model(model, targets=machines, executor=executor)
