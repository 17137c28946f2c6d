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
