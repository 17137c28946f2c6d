"""Many pipelines: what is drawn, what is kept between runs, and the front."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from irtools.data import Dataset
from irtools.driver.result import OptimizeResult
from irtools.errors import OptionError, UsageError
from irtools.model import Model
from irtools.passmanager import Pipeline
from irtools.search import tune_model
from irtools.search.space import Space
from irtools.search.study import Study
from irtools.search.trials import Tried

_FASTER = {"int8": 2.0, "cleanup": 1.1, "fuse": 1.1, "sink": 1.1, "prune": 1.5, "int4": 0.5}
Timed = Callable[[dict[str, float]], list[str]]


def test_every_pipeline_that_is_drawn_can_be_read() -> None:
    rng = np.random.default_rng(0)

    def choose(name: str, options: Sequence[str]) -> str:
        return str(rng.choice(options))

    for has_data, small in ((True, True), (True, False), (False, True)):
        space = Space(has_data, ("int8", "int4", "fp16", "bf16"), False, wants_size=small)
        texts = {space.draw(choose) for _ in range(80)}
        assert len(texts) > 5
        assert any("store" in text for text in texts) is small
        assert any("bits=auto" in text for text in texts) is has_data
        assert any("rotate" in text for text in texts)
        for text in texts:
            assert Pipeline.parse(text).passes
        first = [space.draw(lambda name, _, one=one: one[name]) for one in space.first]
        assert first[:2] == ["cleanup,fuse,sink,int8", "cleanup,fuse,sink,int8:mode=dynamic"]
        assert first[2] == "cleanup,fuse,sink,int8,merge-projections:when=always"
        assert len(set(first)) == len(first) == (7 if has_data else 3)
        if has_data:
            assert "cleanup,fuse,sink,prune:ratio=0.2,int8" in first
            assert first[4].endswith("prune:ratio=0.2,int8,early-exit:agreement=0.99")
    batches = Space(True, ("int8",), False, batched=True)
    padded = [batches.draw(lambda name, _, one=one: one[name]) for one in batches.first]
    assert padded[2] == "cleanup,fuse,sink,unpad,int8"
    by_time = Space(True, ("int8",), False, may_time=True)
    assert any(
        "prune:speedup=1.4,int8" in by_time.draw(lambda name, _, one=one: one[name])
        for one in by_time.first
    )


@pytest.mark.tune
def test_a_draw_looks_at_the_best_and_the_last_trials() -> None:
    import optuna

    whole = optuna.create_study(directions=["minimize", "minimize"])
    choices = optuna.distributions.CategoricalDistribution(("a", "b"))
    for number in range(60):
        # The best ones came first.
        whole.add_trial(
            optuna.trial.create_trial(
                params={"x": "a"},
                distributions={"x": choices},
                values=(float(number), float(60 - number)),
                user_attrs={"number": number, "pipeline": f"p{number}", "fingerprint": str(number)},
            )
        )
    study = Study(2, 0, whole, looks_at=20)
    seen = [one.user_attrs["number"] for one in study._remembered()]
    assert len(seen) == 20 and {0, 1, 2, 3, 4, 55, 56, 57, 58, 59} <= set(seen)
    assert len(study.front()) == 60 and study.counts == (60, 0)
    drawn = [study.ask() for _ in range(3)]
    assert [study.number(trial) for trial in drawn] == [60, 61, 62]
    for trial in drawn:
        assert trial.suggest_categorical("x", ("a", "b")) in ("a", "b")
        trial.set_user_attr("pipeline", "p")
    study.tell(drawn[0], Tried("", "f", (-1.0, -1.0)))
    assert [one.number for one in study.front()] == [60] and study.ended == 61
    # Beyond twice as many the study is begun again; what it drew before still ends.
    for _ in range(45):
        trial = study.ask()
        trial.set_user_attr("pipeline", "p")
        study.give_up(trial, Tried("too slow"))
    study.give_up(drawn[1], Tried("lost"))
    assert study.ended == 107 and study.last_reason == "lost"
    assert study.number(study.ask()) == 108


@pytest.mark.tune
@pytest.mark.slow
def test_the_front_goes_on_from_its_storage(
    model: Model, timed: Timed, calibration: Dataset, evaluation: Dataset, tmp_path: Path
) -> None:
    timed(_FASTER)
    told: list[tuple[int, str]] = []

    def tune(trials: int) -> OptimizeResult:
        return tune_model(
            model,
            objectives=("latency", "size"),
            trials=trials,
            storage=tmp_path / "tune.db",
            calibration=calibration,
            evaluation=evaluation,
            goals="max-drop=5%",
            on_trial=lambda number, text, outcome: told.append((number, text)),
        )

    result = tune(2)
    assert told[0] == (0, "cleanup,fuse,sink,int8"), "the usual pipeline comes first"
    tune(4)
    assert [number for number, _ in told] == [0, 1, 2, 3]
    report = result.report
    assert report.tried[0].outcome == "taken" and report.goals[0].kept
    assert "speedup" in report.tried[0].figures and "size" in report.tried[0].figures


def test_objectives_are_checked_before_anything_runs(model: Model) -> None:
    with pytest.raises(OptionError, match="no objective 'speed'"):
        tune_model(model, objectives=("speed",))
    with pytest.raises(UsageError, match="several different"):
        tune_model(model, objectives=("size", "size"))
    with pytest.raises(UsageError, match="latency needs the benchmark"):
        tune_model(model, bench=None)
    with pytest.raises(UsageError, match="needs evaluation data and a largest loss"):
        tune_model(model, objectives=("loss",))
    with pytest.raises(UsageError, match="the objective latency needs times"):
        tune_model(model, target="ort-cpu:isa=arm")
