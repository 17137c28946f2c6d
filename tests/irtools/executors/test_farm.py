"""Jobs on workers that come and go: what is lost is run again, and what was answered stays."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from irtools.errors import ClusterError, OptionError, PassError, UnknownNameError, UsageError
from irtools.executors import (
    Failed,
    Farm,
    Hardware,
    Joined,
    Lost,
    ServiceSpec,
    Task,
    Worker,
    open_executor,
)
from irtools.executors.farm import error_of

SPEC = ServiceSpec("", None)
Make = Callable[..., Worker]


def answers(farm: Farm) -> dict[str, Any]:
    return {outcome.task.key: outcome.value for outcome in farm.results()}


def test_a_lost_job_is_run_again_and_answers_stay(fake: Any, make_worker: Make) -> None:
    lost: list[str] = []
    said: list[str] = []

    def answer(name: str, payload: Any) -> Any:
        if payload == 2 and not lost:
            lost.append(name)
            return [Lost(name, "the machine is gone"), Joined(make_worker("late"))]
        return payload * 10

    executor = fake([make_worker("a"), make_worker("b")], answer)
    with Farm(executor, SPEC, on_note=said.append) as farm:
        for number in range(6):
            farm.submit(Task(str(number), number))
        assert answers(farm) == {str(number): number * 10 for number in range(6)}
    assert executor.closed
    assert [payload for _, payload in executor.sent].count(2) == 2
    assert said == [
        f"a worker on label of {lost[0]} was lost (the machine is gone); what it ran is run again",
        "a worker on label of late joined (vnni, 8 cores, fast)",
    ]


def test_more_jobs_may_come_while_answers_are_read(fake: Any, make_worker: Make) -> None:
    with Farm(fake([make_worker("a")], lambda _, payload: payload), SPEC) as farm:
        farm.submit(Task("0", 0))
        seen = []
        for outcome in farm.results():
            seen.append(outcome.value)
            if outcome.value < 3:
                farm.submit(Task("next", outcome.value + 1))
        assert seen == [0, 1, 2, 3]


def test_times_are_taken_on_the_kind_of_which_there_are_most(fake: Any, make_worker: Make) -> None:
    other = Hardware("vnni", 64, "large")
    workers = [make_worker("x", hardware=other), make_worker("a"), make_worker("b")]
    executor = fake(workers, lambda _, payload: payload)
    with Farm(executor, SPEC, isa="vnni") as farm:
        assert str(farm.hardware) == "vnni, 8 cores, fast"
        for number in range(4):
            farm.submit(Task(str(number), number, timed=True))
        answers(farm)
    assert {name for name, _ in executor.sent} == {"a", "b"}


def test_no_worker_is_like_the_target(fake: Any, make_worker: Make) -> None:
    executor = fake([make_worker("a"), make_worker("b")], None)
    with pytest.raises(ClusterError, match="a CPU with amx, and no worker has one: 2 x vnni, 8 c"):
        Farm(executor, SPEC, isa="amx")
    assert executor.closed


def test_the_last_worker_that_fits_is_lost(fake: Any, make_worker: Make) -> None:
    slow = make_worker("s", hardware=Hardware("avx2", 8, "slow"))
    executor = fake([make_worker("a"), slow], lambda name, _: Lost(name, "gone"))
    with Farm(executor, SPEC, isa="vnni") as farm:
        farm.submit(Task("t", timed=True))
        with pytest.raises(ClusterError, match="no worker is left with vnni, 8 cores, fast"):
            answers(farm)


def test_a_dead_cluster_keeps_what_was_answered(fake: Any, make_worker: Make) -> None:
    executor = fake([make_worker("a")], lambda name, p: p if p < 2 else Lost(name, "gone"))
    kept = []
    with Farm(executor, SPEC) as farm:
        for number in range(4):
            farm.submit(Task(str(number), number))
        with pytest.raises(ClusterError, match="no machine left"):
            kept.extend(outcome.value for outcome in farm.results())
    assert kept == [0, 1]
    assert executor.closed


def test_errors_of_a_job_are_what_they_were() -> None:
    error = error_of("UsageError", "there is no such thing")
    assert isinstance(error, UsageError) and str(error) == "there is no such thing"
    assert isinstance(error_of("MissingExtraError", "text"), ImportError)
    assert isinstance(error_of("", "ValueError: x"), PassError)
    assert Failed("a", "", "x").kind == ""


def test_executors_by_name() -> None:
    assert open_executor("local:3").name == "local:3"
    with pytest.raises(OptionError, match="local:x: expected a number"):
        open_executor("local:x")
    with pytest.raises(UnknownNameError, match="no executor 'slurm'"):
        open_executor("slurm:7")


def test_a_head_that_is_not_there_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Ray itself waits for half a minute: it is not asked.
    monkeypatch.setattr("irtools.executors.ray_cluster._import_ray", object)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # Nothing listens there, and no other process will.
        port = bound.getsockname()[1]
        for head in (f"ray://127.0.0.1:{port}", f"127.0.0.1:{port}"):
            executor = open_executor(head if head.startswith("ray") else f"ray:{head}")
            line = rf"the Ray cluster {head} cannot be reached: .*refused"
            with pytest.raises(ClusterError, match=line):
                executor.start(ServiceSpec("x:y", None))
    for place in ("ray://", "ray://head", "ray://head:x", "ray://a b:1"):
        with pytest.raises(OptionError, match="expected the head and its port"):
            open_executor(place)
