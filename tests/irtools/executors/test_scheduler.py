"""Which job runs where: matching, machines of one's own, losses, and the order of all."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irtools.executors import Hardware, Scheduler, Task, Worker

FAST, SLOW = Hardware("vnni", 8, "fast"), Hardware("avx2", 8, "slow")
Make = Callable[..., Worker]


def scheduler(*workers: Worker) -> Scheduler:
    made = Scheduler(lambda worker: worker.hardware == FAST)
    for one in workers:
        made.join(one)
    return made


def started(of: Scheduler) -> list[tuple[str, str]]:
    """Start all that can start."""
    found = []
    while (one := of.assign()) is not None:
        found.append((one.task.key, one.worker.name))
    return found


def test_times_are_taken_on_hardware_that_fits(make_worker: Make) -> None:
    of = scheduler(make_worker("a", hardware=SLOW), make_worker("b"))
    for key in ("t1", "t2"):
        of.add(Task(key, timed=True))
    assert started(of) == [("t1", "b")]
    of.add(Task("p"))
    assert started(of) == [("p", "a")]
    of.finish("a")
    assert started(of) == [], "t2 does not go to the other kind of machine"
    of.finish("b")
    assert started(of) == [("t2", "b")]


def test_a_timed_job_has_its_machine(make_worker: Make) -> None:
    of = scheduler(*(make_worker(name, host="one") for name in "abc"))
    of.add(Task("p1"))
    of.add(Task("p2"))
    assert started(of) == [("p1", "a"), ("p2", "b")]
    of.add(Task("t", timed=True))
    of.add(Task("p3"))
    assert started(of) == [], "the machine is drained for t, although c is idle"
    of.finish("a")
    assert started(of) == []
    of.finish("b")
    assert started(of) == [("t", "c")], "alone"
    of.finish("c")
    assert [key for key, _ in started(of)] == ["p3"]


def test_a_timed_job_goes_where_its_model_is(make_worker: Make) -> None:
    of = scheduler(make_worker("a"), make_worker("b"))
    of.add(Task("p"))
    assert started(of) == [("p", "a")]
    of.add(Task("t", timed=True, near="a"))
    assert started(of) == [], "b is idle, and has nothing that t goes on from"
    of.finish("a")
    assert started(of) == [("t", "a")]


def test_what_waits_for_a_lost_worker_goes_elsewhere(make_worker: Make) -> None:
    of = scheduler(make_worker("a"), make_worker("b"))
    of.add(Task("p"))
    assert started(of) == [("p", "a")]
    of.add(Task("t", timed=True, near="a"))
    assert of.lose("a") is None
    assert started(of) == [("t", "b")]
    of.finish("b")
    assert started(of) == [("p", "b")], "what ran on it runs again"


def test_a_job_is_given_up_that_ends_its_workers(make_worker: Make) -> None:
    of = scheduler(*(make_worker(name) for name in "abcd"))
    of.add(Task("bad"))
    for name in "ab":
        assert ("bad", name) in started(of)
        assert of.lose(name) is None
    assert started(of) == [("bad", "c")]
    given_up = of.lose("c")
    assert given_up is not None and (given_up.key, given_up.lost) == ("bad", 3)
    assert (of.waiting, of.running) == (0, 0)
    assert [one.name for one in of.workers] == ["d"]


def test_a_lost_job_is_the_next_one(make_worker: Make) -> None:
    of = scheduler(make_worker("a"))
    for key in ("first", "second"):
        of.add(Task(key))
    assert started(of) == [("first", "a")]
    of.lose("a")
    of.join(make_worker("b"))
    assert started(of) == [("first", "b")]


STEPS = st.lists(st.tuples(st.sampled_from("ajfl"), st.integers(0, 5)), max_size=60)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_nothing_is_lost_and_no_time_is_disturbed(steps: list[tuple[str, int]]) -> None:
    """Whatever happens in whatever order: each job waits, runs, ended or was given up."""
    of = scheduler()
    running: dict[str, tuple[Task, Worker]] = {}
    added = ended = names = 0
    for step, number in steps:
        alive = of.workers
        if step == "a":
            near = alive[number % len(alive)].name if alive else ""
            of.add(Task(str(added), timed=number % 2 == 0, near=near))
            added += 1
        elif step == "j":
            hardware = FAST if number % 3 < 2 else SLOW
            # A machine has one kind of hardware.
            of.join(Worker(f"w{names}", f"{hardware.cpu} {number % 2}", hardware, ""))
            names += 1
        elif step == "f" and running:
            name = list(running)[number % len(running)]
            assert of.finish(name) == running.pop(name)[0]
            ended += 1
        elif step == "l" and alive:
            name = alive[number % len(alive)].name
            running.pop(name, None)
            ended += of.lose(name) is not None
        while (one := of.assign()) is not None:
            assert one.worker.name not in running
            running[one.worker.name] = (one.task, one.worker)
        assert of.running == len(running)
        assert added == ended + of.waiting + of.running
        for task, worker in running.values():
            if task.timed:
                assert worker.hardware == FAST
                assert [w.host for _, w in running.values()].count(worker.host) == 1
