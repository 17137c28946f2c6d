"""Trials on workers: some are lost, one is slow, and each model is measured once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from irtools.data import Dataset
from irtools.driver.result import OptimizeResult
from irtools.errors import ClusterError, UsageError
from irtools.executors import (
    Answered,
    Event,
    Hardware,
    Lost,
    Service,
    ServiceSpec,
    Worker,
    open_executor,
)
from irtools.executors.base import make_service
from irtools.model import Model
from irtools.search import tune_model

pytestmark = [pytest.mark.tune, pytest.mark.slow]
_FASTER = {"int8": 2.0, "cleanup": 1.1, "fuse": 1.1, "sink": 1.1, "prune": 1.5, "int4": 0.5}
_HARDWARE = Hardware("vnni", 4, "a CPU")


class InProcess:
    """Two workers that are really this process; the first one ends at its second job."""

    name = "two"
    shares_files = True

    def __init__(self, *, ends_after: int = 1_000_000) -> None:
        self.ends_after = ends_after
        self.asked: list[tuple[str, Any]] = []
        self.answered: list[tuple[str, Any]] = []
        self.service: Service | None = None

    def start(self, spec: ServiceSpec) -> Sequence[Worker]:
        self.spec = spec
        return [Worker(name, name, _HARDWARE, name) for name in ("a", "b")]

    def send(self, worker: str, payload: Any) -> None:
        self.asked.append((worker, payload))

    def poll(self) -> Sequence[Event]:
        worker, payload = self.asked.pop(0)
        if worker == "a" and sum(name == "a" for name, _ in self.answered) == 1:
            return [Lost("a", "killed")]
        if len(self.answered) == self.ends_after:
            raise ClusterError("the cluster two no longer answers")
        self.service = self.service or make_service(self.spec)
        self.answered.append((worker, payload))
        return [Answered(worker, self.service.answer(payload))]

    def close(self) -> None:
        if self.service is not None:
            self.service.close()


Timed = Callable[[dict[str, float]], list[str]]
Tune = Callable[..., OptimizeResult]


@pytest.fixture
def tune(
    model: Model, timed: Timed, calibration: Dataset, evaluation: Dataset, tmp_path: Path
) -> Tune:
    timed(_FASTER)

    def run(**given: Any) -> OptimizeResult:
        return tune_model(
            model,
            storage=tmp_path / "tune.db",
            calibration=calibration,
            evaluation=evaluation,
            goals="max-drop=5%",
            **given,
        )

    return run


def test_a_lost_trial_is_run_again(tune: Tune) -> None:
    executor, told = InProcess(), dict[int, str]()
    result = tune(
        trials=3,
        executor=executor,
        on_trial=lambda number, text, outcome: told.setdefault(number, outcome),
    )
    assert sorted(told) == [0, 1, 2]
    assert "x as fast as the original (" in told[0]
    times = [q.pipeline for _, q in executor.answered if q.what == "times"]
    assert len(times) == len(set(times)) <= 3
    assert result.report.tried[0].outcome == "taken"
    assert "latency" in result.report.tried[0].figures


def test_a_dead_cluster_leaves_what_was_measured(tune: Tune, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"answers; 1 of 3 trials are in .*tune.db: the same"):
        tune(trials=3, executor=InProcess(ends_after=3))
    told: list[int] = []
    tune(trials=2, on_trial=lambda number, text, outcome: told.append(number))
    assert len(told) == 1, "one was in the storage"
    with pytest.raises(UsageError, match=r"tune.db holds trials of another search"):
        tune(trials=1, objectives=("size",))


@pytest.mark.openvino
def test_trials_of_several_targets_are_spread(tune: Tune, timed: Timed) -> None:
    # The original takes twice as long on OpenVINO.
    timed({**_FASTER, "openvino": 0.5})
    executor, told = InProcess(), dict[int, str]()
    result = tune(
        targets=("ort-cpu", "openvino-cpu"),
        trials=4,
        executor=executor,
        on_trial=lambda number, text, outcome: told.setdefault(number, f"{text}: {outcome}"),
    )
    asked = [(q.what, q.target.partition(":")[0]) for _, q in executor.answered]
    assert asked[0] == ("scales", "") and [what for what, _ in asked].count("scales") == 1
    assert {target for what, target in asked if what == "quality"} == {"ort-cpu", "openvino-cpu"}
    assert {target for what, target in asked if what == "times"} == {"ort-cpu", "openvino-cpu"}
    assert told[0].startswith("ort-cpu") and "2.00x as fast" in told[0]
    assert told[1].startswith("openvino-cpu") and "1.00x as fast" in told[1]
    assert result.report.target.name == "ort-cpu"


@pytest.mark.openvino
def test_real_processes_run_trials_of_several_targets(
    model: Model, calibration: Dataset, evaluation: Dataset, tmp_path: Path
) -> None:
    """Times are taken one at a time: one question of two processes is timed, or none is."""
    model.save(tmp_path / "m.onnx")
    said: list[str] = []
    result = tune_model(
        tmp_path / "m.onnx",
        targets=("ort-cpu", "openvino-cpu"),
        trials=3,
        effort="quick",
        calibration=calibration,
        evaluation=evaluation,
        goals="max-drop=50%",
        cache=tmp_path / "cache",
        executor=open_executor("local:2"),
        on_note=said.append,
    )
    assert "2 workers of local:2; times are taken on" in said[0]
    tried = result.report.trials
    assert {one.target.partition(":")[0] for one in tried} == {"ort-cpu", "openvino-cpu"}
    assert all("speedup" in one.figures for one in tried if not one.why)
